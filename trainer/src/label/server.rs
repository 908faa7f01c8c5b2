//! The server of the page: on loopback alone, for this page alone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use smalti_trainer::{Error, Result};

use super::http::{self, Request, Response};

/// Connections at a time: a browser opens six.
const MAX_CONNECTIONS: usize = 32;

/// Listens on loopback, on that port or on one that is free.
///
/// # Errors
/// A port that is taken.
pub(super) fn listen(port: Option<u16>) -> Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
    let failed = |e: std::io::Error| {
        Error::Usage(format!(
            "cannot listen on {address}: {e}; name another port with --port, or leave it out"
        ))
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Answers connections from now on, each on a thread of its own.
pub(super) fn start(
    listener: TcpListener,
    address: SocketAddr,
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
) {
    let (answer, open) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        loop {
            let Ok((mut stream, _)) = listener.accept() else {
                // Too many open files, most likely.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            let Some(slot) = Slot::take(&open) else {
                http::send(&mut stream, &Response::refusal(503, "too many connections"));
                continue;
            };
            let answer = Arc::clone(&answer);
            let serve = move || {
                let _slot = slot;
                http::exchange(stream, |request| match refusal(request, address) {
                    Some(refusal) => refusal,
                    None => answer(request),
                });
            };
            // Without another thread the connection ends, and the browser asks again.
            let _ = thread::Builder::new().spawn(serve);
        }
    });
}

/// One of the connections at a time.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>) -> Option<Slot> {
        let before = open.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(Arc::clone(open));
        (before < MAX_CONNECTIONS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a request is refused that may come from another site's page in the user's browser: one that asks by another name
/// (DNS rebinding), or one whose page was not served here.
fn refusal(request: &Request, address: SocketAddr) -> Option<Response> {
    let port = address.port();
    let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let is_ours = |host: &str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
    if !request.header("host").is_some_and(is_ours) {
        return Some(Response::refusal(421, &format!("open http://{}/", names[0])));
    }
    let from_here = |origin: &str| origin.strip_prefix("http://").is_some_and(is_ours);
    let foreign_origin = request.has("origin") && !request.header("origin").is_some_and(from_here);
    let foreign_fetch =
        request.header("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site));
    if foreign_origin || foreign_fetch {
        return Some(Response::refusal(403, "asked by another site's page"));
    }
    match &*request.method {
        "GET" => None,
        // Which no form of another site's page can send.
        "POST" if request.header("content-type") == Some("application/json") => None,
        "POST" => Some(Response::refusal(415, "expected Content-Type: application/json")),
        _ => Some(Response::refusal(405, "expected GET or POST")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let request = Request::new(method, "/", headers, "");
        refusal(&request, "127.0.0.1:8000".parse().unwrap()).map(|refusal| refusal.status)
    }

    #[test]
    fn only_this_page_is_answered() {
        let host = ("host", "127.0.0.1:8000");
        let json = ("content-type", "application/json");
        let (own, other) = (("origin", "http://127.0.0.1:8000"), ("origin", "http://evil.example"));
        assert_eq!(status("GET", &[host]), None);
        assert_eq!(status("GET", &[("host", "LocalHost:8000")]), None);
        assert_eq!(status("GET", &[host, ("sec-fetch-site", "none")]), None);
        assert_eq!(status("POST", &[host, json, own, ("sec-fetch-site", "same-origin")]), None);
        for host in ["evil.example:8000", "127.0.0.1", "127.0.0.1:80", "localhost:8000.evil.example", ""] {
            assert_eq!(status("GET", &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!([status("GET", &[]), status("GET", &[host, host])], [Some(421); 2]);
        for origin in ["null", "http://evil.example", "https://127.0.0.1:8000", "http://127.0.0.1:8001"] {
            assert_eq!(status("POST", &[host, json, ("origin", origin)]), Some(403), "{origin}");
        }
        assert_eq!(status("POST", &[host, json, own, other]), Some(403));
        assert_eq!(status("GET", &[host, ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(status("POST", &[host, own]), Some(415));
        assert_eq!(status("POST", &[host, own, ("content-type", "text/plain")]), Some(415));
        assert_eq!(status("DELETE", &[host]), Some(405));
    }

    #[test]
    fn connections_are_counted() {
        let open = Arc::new(AtomicUsize::new(0));
        let slots: Vec<Option<Slot>> = (0..MAX_CONNECTIONS + 1).map(|_| Slot::take(&open)).collect();
        assert_eq!(slots.iter().flatten().count(), MAX_CONNECTIONS);
        drop(slots);
        assert_eq!(open.load(Ordering::Relaxed), 0);
        assert!(Slot::take(&open).is_some());
    }
}
