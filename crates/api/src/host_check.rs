//! Who may call a node from a browser.
//!
//! A web page can make a browser call a node on loopback in two ways. *DNS rebinding*: the page's own name is made to
//! resolve to 127.0.0.1; then the browser sends that name as `Host`. *A plain cross-site POST*: no answer is readable,
//! since no CORS header is sent, but the node would compute; then the browser sends the page's `Origin`. So both
//! headers are checked. Programs other than browsers send the name they called and no `Origin`.

use crate::fault::Fault;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The rule for one listener.
#[derive(Debug)]
pub(crate) struct HostCheck {
    /// Whether only names of loopback, and `allowed`, may stand in `Host`.
    strict: bool,
    allowed: Vec<String>,
}

/// The middleware.
pub(crate) async fn guard(
    State(check): State<Arc<HostCheck>>,
    request: Request,
    next: Next,
) -> Response {
    match check.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    }
}

impl HostCheck {
    /// The rule for a listener on `address`: strict on loopback.
    pub(crate) fn new(address: IpAddr, allowed: &[String]) -> Self {
        let allowed = allowed.iter().map(|host| canonical(host)).collect();
        Self {
            strict: address.to_canonical().is_loopback(),
            allowed,
        }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
        let hosts = || {
            let target = uri.authority().map(|authority| authority.as_str());
            target
                .into_iter()
                .chain(headers.get_all(HOST).iter().map(as_text))
        };
        if self.strict && (hosts().next().is_none() || !hosts().all(|host| self.is_ours(host))) {
            return Err(Fault::forbidden(
                "host_not_allowed",
                "this node listens on loopback and answers to localhost, 127.0.0.1 and [::1] only; \
                 call it by one of these, or add the name to its allowed hosts",
            ));
        }
        let ours = |origin: &str| {
            origin
                .split_once("://")
                .is_some_and(|(_scheme, authority)| {
                    self.is_ours(authority)
                        || hosts().any(|host| host.eq_ignore_ascii_case(authority))
                })
        };
        if headers
            .get_all(ORIGIN)
            .iter()
            .all(|origin| ours(as_text(origin)))
        {
            return Ok(());
        }
        Err(Fault::forbidden(
            "origin_not_allowed",
            "pages of other sites may not call this node; add the page's host to its allowed hosts",
        ))
    }

    /// Whether `host[:port]` names loopback or is allowed.
    fn is_ours(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else {
            return false;
        };
        let loopback = match host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(v6) => v6
                .parse::<Ipv6Addr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback()),
            None => host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
        };
        let host = canonical(host);
        loopback || host == "localhost" || self.allowed.contains(&host)
    }
}

/// The part before the port, which must be a number if it is there.
fn host_of(authority: &str) -> Option<&str> {
    let name_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[name_end..].find(':') {
        Some(colon) => authority.split_at(name_end + colon),
        None => (authority, ":0"),
    };
    let number = port.strip_prefix(':')?;
    (number.is_empty() || number.parse::<u16>().is_ok()).then_some(host)
}

/// Names are compared without regard to case and to the dot that ends a fully qualified one.
fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// A header's text; what is not text matches no name.
fn as_text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("")
}

#[cfg(test)]
mod tests;
