//! One request and its answer, between a client's connection and a server.
//!
//! Bodies are passed on as they come, and no faster than the other side takes them: nothing of them is gathered
//! here but what one read brings. A server that agrees to an upgrade has the two connections joined, and from then
//! on bytes are passed unread until both ends are done, or one of them fails.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::head::{introduce, part, readdress, switch};
use super::options::Place;
use super::spoken::{Passed, Spoken};
use super::tally::{Counted, Tally, count};
use crate::admin::whole;

type Fault = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Body = BoxBody<Bytes, Fault>;

/// Bytes that are read at once at most, unless a head is longer.
const READ_BYTES: usize = 64 * 1024;
/// How long the head, which is here already, may take to be read again.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long what a client still sends is read after its answer, so that no reset destroys that.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes that are read then at most.
const LINGER_BYTES: usize = 1 << 20;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) pool: Pool<HttpsConnector<HttpConnector>, Body>,
    pub(super) tally: Arc<Tally>,
    pub(super) head_bytes: usize,
    pub(super) headers: usize,
}

/// Whose request it is, and where it goes.
#[derive(Debug)]
pub(super) struct Whose {
    pub(super) place: Arc<Place>,
    pub(super) client: Option<String>,
    pub(super) is_secure: bool,
    /// False where it is one too many.
    pub(super) is_welcome: bool,
}

/// The two sides of an upgrade that the server has agreed to.
type Joined = (OnUpgrade, OnUpgrade);

#[expect(clippy::disallowed_types, reason = "one connection's, on the front's thread")]
type Agreed = std::sync::Mutex<Option<Joined>>;

/// Serves the one request of a connection. `drain` ends when tunnels are to.
pub(super) async fn serve(
    common: Arc<Common>,
    whose: Whose,
    spoken: Spoken,
    socket: Arc<TcpStream>,
    drain: impl Future<Output = ()>,
) {
    let (passed, place) = (spoken.passed(), Arc::clone(&whose.place));
    let agreed: Arc<Agreed> = Arc::default();
    let service = {
        let (common, agreed, passed) = (Arc::clone(&common), Arc::clone(&agreed), passed.clone());
        let whose = Arc::new(whose);
        service_fn(move |request| {
            let (common, whose) = (Arc::clone(&common), Arc::clone(&whose));
            let (agreed, passed) = (Arc::clone(&agreed), passed.clone());
            async move { Ok::<_, Infallible>(answer(&common, &whose, &passed, &agreed, request).await) }
        })
    };
    // Every answer but an upgrade says that it is the last.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .half_close(true)
        .max_buf_size(common.head_bytes.max(READ_BYTES))
        .max_headers(common.headers)
        .serve_connection(TokioIo::new(spoken), service)
        .with_upgrades();
    // Before the head of an answer the server's own time-out ends the wait.
    let idle = place.idle.max(place.timeout + Duration::from_secs(1));
    let spoke = tokio::select! {
        spoke = connection => spoke,
        () = passed.nothing_for(idle) => return count(&common.tally.idle),
    };
    let joined = agreed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match (spoke, joined) {
        (Ok(()), Some(joined)) => {
            let _tunnel = Counted::new(&common.tally.tunnels);
            tokio::select! {
                () = join(joined) => {}
                () = passed.nothing_for(place.idle) => count(&common.tally.idle),
                () = drain => count(&common.tally.drained),
            }
        }
        (Ok(()), None) => linger(&socket).await,
        // How a client's connection fails is the client's business.
        (Err(error), _) => tracing::debug!("a proxied connection ended: {}", whole(&error)),
    }
}

/// Passes bytes in both directions until both ends are done.
async fn join((client, server): Joined) {
    let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
    let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
}

/// Reads what a client still sends until it ends, so that the kernel has no reason for a reset.
async fn linger(socket: &TcpStream) {
    let reading = async {
        let (mut piece, mut left) = ([0; 4096], LINGER_BYTES);
        while left > 0 && socket.readable().await.is_ok() {
            match socket.try_read(&mut piece) {
                Ok(0) => return,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(LINGER, reading).await;
}

async fn answer(
    common: &Common,
    whose: &Whose,
    passed: &Passed,
    agreed: &Agreed,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let place = &*whose.place;
    if !whose.is_welcome {
        count(&common.tally.refused);
        let mut response = refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too many requests to this path are under way",
        );
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    let on_client = hyper::upgrade::on(&mut request);
    let wanted = part(request.headers_mut()).filter(|_| request.version() == Version::HTTP_11);
    introduce(request.headers_mut(), whose.client.as_deref(), whose.is_secure);
    let Some(uri) = readdress(request.uri(), &place.url) else {
        return refusal(StatusCode::BAD_REQUEST, "bad_request", "the target cannot be read");
    };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    if let Some(to) = &wanted {
        switch(request.headers_mut(), to.clone());
    }
    count(&common.tally.requests);
    let limit = usize::try_from(place.body_bytes).unwrap_or(usize::MAX);
    let request = request.map(|body| BoxBody::new(Limited::new(body, limit)));
    let response = tokio::select! {
        response = common.pool.request(request) => response,
        () = passed.nothing_for(place.timeout) => {
            count(&common.tally.failed);
            tracing::warn!(path = place.path, "a server that answers for [[proxy]] is late");
            let message = "the server behind this path has not answered in time";
            return refusal(StatusCode::GATEWAY_TIMEOUT, "timeout", message);
        }
    };
    match response {
        Ok(response) => hand_back(common, place, response, agreed, wanted, on_client),
        Err(error) => failed(common, place, &error),
    }
}

/// The answer of a server, for the client.
fn hand_back(
    common: &Common,
    place: &Place,
    mut response: Response<Incoming>,
    agreed: &Agreed,
    wanted: Option<HeaderValue>,
    on_client: OnUpgrade,
) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let on_server = hyper::upgrade::on(&mut response);
        let to = part(response.headers_mut());
        let (Some(to), true) = (to, wanted.is_some()) else {
            return unusable(common, "the server behind this path has switched unasked");
        };
        switch(response.headers_mut(), to);
        count(&common.tally.upgrades);
        let joined = (on_client, on_server);
        *agreed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(joined);
        return response.map(|_| nothing());
    }
    part(response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if place.answer_bytes == 0 {
        return response.map(|body| body.map_err(Into::into).boxed());
    }
    if response.body().size_hint().lower() > place.answer_bytes {
        count(&common.tally.cut);
        let message = "the answer of the server behind this path is too large";
        return refusal(StatusCode::BAD_GATEWAY, "too_large", message);
    }
    let limit = usize::try_from(place.answer_bytes).unwrap_or(usize::MAX);
    let tally = Arc::clone(&common.tally);
    response.map(|body| {
        let limited = Limited::new(body, limit).map_err(move |error: Fault| {
            if error.is::<LengthLimitError>() {
                count(&tally.cut);
            }
            error
        });
        BoxBody::new(limited)
    })
}

/// What a client is told when its request has come to nothing; what exactly was wrong is the operator's.
fn failed(
    common: &Common,
    place: &Place,
    error: &(dyn std::error::Error + 'static),
) -> Response<Body> {
    let mut cause = Some(error);
    while let Some(one) = cause {
        if one.is::<LengthLimitError>() {
            count(&common.tally.cut);
            let message = format!("the body has more than {} bytes", place.body_bytes);
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message);
        }
        cause = one.source();
    }
    tracing::warn!(
        path = place.path,
        "a server that answers for [[proxy]] does not: {}",
        whole(error)
    );
    unusable(common, "the server behind this path cannot be reached")
}

fn unusable(common: &Common, message: &str) -> Response<Body> {
    count(&common.tally.failed);
    refusal(StatusCode::BAD_GATEWAY, "bad_gateway", message)
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let document = serde_json::json!({ "error": { "code": code, "message": message } });
    let body = Full::new(Bytes::from(document.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn nothing() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}
