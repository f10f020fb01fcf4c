//! The server: connections, their limits, and their end.

use crate::access;
use crate::crowd::{Crowd, Seat};
use crate::fault::Fault;
use crate::host_check::{self, HostCheck};
use crate::stall::StallLimit;
use crate::{
    ApiConfig, HEAD_BYTES_MAX, HEAD_WAIT_MAX, REFUSALS_MAX, SHUTDOWN_GRACE, WRITE_STALL_MAX,
};
use axum::Router;
use axum::middleware;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as HttpService, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long to wait after `accept` failed, which happens when the process has no file handle left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `config.shutdown` fires, then returns within [`SHUTDOWN_GRACE`].
///
/// `config` is the one that [`router`](crate::router()) was made with. Every route of `router`, also those merged
/// into it, is guarded against calls from foreign web pages, and by [`ApiConfig::keys`]. The connections are tasks of
/// this future: dropping it ends them.
///
/// # Errors
///
/// Only when the listener does not know its own address.
pub async fn serve(listener: TcpListener, router: Router, config: ApiConfig) -> io::Result<()> {
    let check = Arc::new(HostCheck::new(
        listener.local_addr()?.ip(),
        &config.allowed_hosts,
    ));
    let router = router
        .layer(middleware::from_fn_with_state(
            config.keys.clone(),
            access::guard,
        ))
        .layer(middleware::from_fn_with_state(check, host_check::guard))
        .layer(middleware::from_fn(access::translate));
    let crowd = Crowd::new(config.connections_max);
    let mut connections = JoinSet::new();
    while let Some(stream) = accept(&listener, &config.shutdown).await {
        if connections.len() >= config.connections_max + REFUSALS_MAX {
            // Those that lost their seats need a moment to leave.
            tokio::task::yield_now().await;
        }
        while connections.try_join_next().is_some() {}
        if connections.len() >= config.connections_max + REFUSALS_MAX {
            continue;
        }
        let shutdown = config.shutdown.clone();
        match crowd.seat() {
            Some(seat) => connections.spawn(seated(stream, router.clone(), seat, shutdown)),
            None => {
                let service = TowerToHyperService::new(refusing(config.connections_max));
                connections.spawn(connection(stream, service, shutdown))
            }
        };
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::info!(
            open = connections.len(),
            "cutting connections that did not end in time"
        );
        connections.shutdown().await;
    }
    Ok(())
}

/// The next connection, or `None` when the server ends.
async fn accept(listener: &TcpListener, shutdown: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => return Some(stream),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a connection beyond the limit hears.
fn refusing(connections_max: usize) -> Router {
    Router::new().fallback(move || async move {
        let why = format!(
            "{connections_max} connections are being answered already; ask again in a moment"
        );
        ([("connection", "close")], Fault::overloaded(why))
    })
}

/// Serves one connection to its end, or until it loses its seat.
async fn seated(stream: TcpStream, router: Router, seat: Arc<Seat>, shutdown: CancellationToken) {
    let routes = TowerToHyperService::new(router);
    let service = {
        let seat = seat.clone();
        service_fn(move |request| {
            let busy = seat.busy();
            let answer = routes.call(request);
            async move { Ok::<_, Infallible>(answer.await?.map(|body| busy.until_sent(body))) }
        })
    };
    // A request may have come in while the seat was given away; its answer is the last one here.
    let leave = CancellationToken::new();
    let mut serve = pin!(connection(stream, service, leave.clone()));
    tokio::select! {
        () = serve.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = seat.lost() => if !seat.is_busy() { return },
    }
    leave.cancel();
    serve.await;
}

/// Serves one connection to its end; after `shutdown` no further request.
async fn connection<S, B>(stream: TcpStream, service: S, shutdown: CancellationToken)
where
    S: HttpService<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Error = axum::Error> + 'static,
{
    // A token is a small packet that must not wait for the next one; without the option it is only slower.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallLimit::new(stream, WRITE_STALL_MAX));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
