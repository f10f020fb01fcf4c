//! A small HTTP/1.1 client (RFC 9112): blocking, one request a connection, nothing between socket and clock.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long a server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long a server may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The longest line of a response's head, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// The longest body that is read as a whole, in bytes.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// A response whose body has not been read.
#[derive(Debug)]
pub(crate) struct Response<R> {
    /// The status code.
    pub(crate) status: u16,
    framing: Framing,
    stream: R,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Chunked,
    /// Bytes that are left.
    Length(u64),
    UntilClose,
}

/// Sends a GET.
///
/// # Errors
///
/// When the server cannot be reached or answers with something else than HTTP.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Result<Response<BufReader<TcpStream>>> {
    exchange(addr, "GET", path, b"")
}

/// Sends a POST of JSON.
///
/// # Errors
///
/// When the server cannot be reached or answers with something else than HTTP.
pub(crate) fn post(
    addr: SocketAddr,
    path: &str,
    body: &[u8],
) -> Result<Response<BufReader<TcpStream>>> {
    exchange(addr, "POST", path, body)
}

fn exchange(
    addr: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Response<BufReader<TcpStream>>> {
    let stream = send(addr, method, path, body)?;
    Response::read(BufReader::new(stream)).with_context(|| format!("{addr}{path}"))
}

/// Sends a request and waits for nothing. Dropping what it returns closes the connection.
///
/// # Errors
///
/// When the server cannot be reached.
pub(crate) fn send(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, CONNECT_MAX)
        .with_context(|| format!("cannot connect to {addr}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (&stream).write_all(&[head.as_bytes(), body].concat())?;
    Ok(stream)
}

/// The name under which a server offers its model.
///
/// # Errors
///
/// When it does not answer, or offers none.
pub(crate) fn model_name(addr: SocketAddr) -> Result<String> {
    let text = get(addr, "/v1/models")?.text()?;
    let list: Value = serde_json::from_str(&text).context("the list of models")?;
    let name = list["data"][0]["id"].as_str();
    Ok(name
        .with_context(|| format!("{addr} offers no model: {text}"))?
        .to_owned())
}

impl<R: BufRead> Response<R> {
    fn read(mut stream: R) -> Result<Self> {
        let status_line = line(&mut stream)?;
        let mut words = status_line.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse().ok());
        let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
            bail!("not an HTTP response: {status_line:?}");
        };
        let mut framing = Framing::UntilClose;
        loop {
            let line = line(&mut stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            match name.to_ascii_lowercase().as_str() {
                "transfer-encoding" if value.trim() == "chunked" => framing = Framing::Chunked,
                "content-length" if framing == Framing::UntilClose => {
                    framing = Framing::Length(value.trim().parse().context("content-length")?);
                }
                _ => {}
            }
        }
        Ok(Self {
            status,
            framing,
            stream,
        })
    }

    /// The next piece of the body as soon as it is there; `None` at its end.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or a chunk is not framed as one.
    pub(crate) fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Chunked => self.chunk(),
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                let piece = available(&mut self.stream, left)?;
                if piece.is_empty() {
                    bail!("the connection closed {left} bytes too early");
                }
                self.framing = Framing::Length(left - piece.len() as u64);
                Ok(Some(piece))
            }
            Framing::UntilClose => {
                let piece = available(&mut self.stream, u64::MAX)?;
                Ok(Some(piece).filter(|piece| !piece.is_empty()))
            }
        }
    }

    fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let size_line = line(&mut self.stream)?;
        let digits = size_line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16)
            .with_context(|| format!("not the size of a chunk: {size_line:?}"))?;
        if size > BODY_BYTES_MAX {
            bail!("a chunk of {size} bytes");
        }
        let mut piece = vec![0; size as usize];
        self.stream.read_exact(&mut piece)?;
        let end = line(&mut self.stream)?;
        if !end.is_empty() {
            bail!("a chunk is longer than it said");
        }
        if size == 0 {
            self.framing = Framing::Length(0);
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    /// The whole body as text.
    ///
    /// # Errors
    ///
    /// As [`Self::piece`], and when it is longer than 16 MiB.
    pub(crate) fn text(mut self) -> Result<String> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece()? {
            body.extend(piece);
            if body.len() as u64 > BODY_BYTES_MAX {
                bail!("a body of more than {BODY_BYTES_MAX} bytes");
            }
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// What has arrived, at most `max` bytes; waits for the first.
fn available(stream: &mut impl BufRead, max: u64) -> io::Result<Vec<u8>> {
    let buffered = stream.fill_buf()?;
    let count = buffered
        .len()
        .min(usize::try_from(max).unwrap_or(usize::MAX));
    let piece = buffered[..count].to_vec();
    stream.consume(count);
    Ok(piece)
}

fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        bail!("the connection closed in the middle of a line");
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).context("a line that is not text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(response: &str, status: u16, body: &str) {
        let read = Response::read(response.as_bytes()).unwrap();
        assert_eq!(read.status, status);
        assert_eq!(read.text().unwrap(), body);
    }

    #[track_caller]
    fn check_fails(response: &str, why: &str) {
        let read = Response::read(response.as_bytes()).and_then(Response::text);
        let error = format!("{:#}", read.unwrap_err());
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn bodies_in_all_three_framings() {
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhixx",
            200,
            "hi",
        );
        check("HTTP/1.1 503 No\r\nX: y\r\n\r\nhi there", 503, "hi there");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{chunked}2\r\nhi\r\nA;x=1\r\n there, yo\r\n0\r\n\r\n"),
            200,
            "hi there, yo",
        );
        check(&format!("{chunked}0\r\n\r\n"), 200, "");
    }

    #[test]
    fn a_chunk_is_a_piece() {
        let text =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
        let mut read = Response::read(text.as_bytes()).unwrap();
        assert_eq!(read.piece().unwrap().unwrap(), b"a");
        assert_eq!(read.piece().unwrap().unwrap(), b"bc");
        assert_eq!(read.piece().unwrap(), None);
        assert_eq!(read.piece().unwrap(), None);
    }

    #[test]
    fn what_is_cut_or_no_http_is_an_error() {
        check_fails("", "middle of a line");
        check_fails("SSH-2.0\r\n\r\n", "not an HTTP response");
        check_fails(
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
            "7 bytes too early",
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check_fails(&format!("{chunked}zz\r\n"), "size of a chunk");
        check_fails(&format!("{chunked}1\r\nab\r\n"), "longer than it said");
        check_fails(&format!("{chunked}FFFFFFFF\r\n"), "a chunk of");
    }
}
