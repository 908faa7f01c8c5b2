//! As much of HTTP/1.1 as a page on this machine needs: one request a connection, within bounds of size and of time.
//! A browser may send slowly or not at all; neither keeps a thread longer than [`PATIENCE`].

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for a request to arrive, and for its answer to leave.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for the other side to hear of a refusal.
const LINGER: Duration = Duration::from_secs(1);
/// Maximum bytes of a request's first line and headers.
const MAX_HEAD: usize = 16 << 10;
/// Maximum bytes of a request's body.
const MAX_BODY: usize = 4 << 10;
/// Maximum number of headers.
const MAX_HEADERS: usize = 64;
/// Bytes of a refused request that are read and dropped, so that its sender hears of the refusal.
const MAX_DROPPED: usize = 8 << 20;

/// What a browser asks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path without a query.
    pub(super) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What it gets.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Arc<[u8]>,
    /// Whether the browser may keep it.
    pub(super) is_lasting: bool,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Arc<[u8]>>) -> Response {
        Response { status, content_type, body: body.into(), is_lasting: false }
    }

    /// A refusal, in one line.
    pub(super) fn refusal(status: u16, why: &str) -> Response {
        Response::new(status, "text/plain; charset=utf-8", format!("{why}\n").into_bytes())
    }
}

impl Request {
    #[cfg(test)]
    pub(super) fn new(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Request { method: method.into(), path: path.into(), headers, body: body.into() }
    }

    /// A header that is there once; the name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether there is such a header, once or more often.
    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// Reads a request; none if the connection ended before it began.
    ///
    /// # Errors
    /// The refusal of a request that is malformed, too large or too slow.
    fn read(stream: &mut impl Read, mut wait: impl FnMut() -> bool) -> Result<Option<Request>, Response> {
        let mut bytes = Vec::new();
        let (mut request, start) = loop {
            if let Some(found) = Request::head(&bytes)? {
                break found;
            }
            if bytes.len() > MAX_HEAD {
                return Err(Response::refusal(431, "the request's headers are too long"));
            }
            if !receive(stream, &mut bytes, &mut wait)? {
                return if bytes.is_empty() { Ok(None) } else { Err(cut_off()) };
            }
        };
        let length = request.body_length()?;
        while bytes.len() < start + length {
            if !receive(stream, &mut bytes, &mut wait)? {
                return Err(cut_off());
            }
        }
        request.body = bytes[start..start + length].to_vec();
        Ok(Some(request))
    }

    /// The request without its body, and where that begins; none while the head is not whole.
    fn head(bytes: &[u8]) -> Result<Option<(Request, usize)>, Response> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let start = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(start)) => start,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(why) => return Err(Response::refusal(400, &format!("not an HTTP request: {why}"))),
        };
        let target = parsed.path.unwrap_or_default();
        let path = target.split_once('?').map_or(target, |(path, _)| path).to_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers =
            parsed.headers.iter().map(|header| (header.name.to_ascii_lowercase(), text(header.value)));
        let headers = headers.collect();
        let method = parsed.method.unwrap_or_default().to_owned();
        Ok(Some((Request { method, path, headers, body: Vec::new() }, start)))
    }

    /// Bytes of the body.
    fn body_length(&self) -> Result<usize, Response> {
        if self.has("transfer-encoding") {
            return Err(Response::refusal(501, "a body in pieces is not taken: send its Content-Length"));
        }
        if !self.has("content-length") {
            return Ok(0);
        }
        let digits =
            self.header("content-length").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(digits) = digits.filter(|text| !text.is_empty()) else {
            return Err(Response::refusal(400, "Content-Length is no number"));
        };
        // More digits than fit are too large, too.
        match digits.parse::<usize>() {
            Ok(length) if length <= MAX_BODY => Ok(length),
            _ => Err(Response::refusal(
                413,
                &format!("the body has {digits} bytes, at most {MAX_BODY} are taken"),
            )),
        }
    }
}

fn cut_off() -> Response {
    Response::refusal(400, "the request ends before it is whole")
}

/// Reads on; false at the end. `wait` says whether there is time left.
fn receive(
    stream: &mut impl Read,
    bytes: &mut Vec<u8>,
    wait: &mut impl FnMut() -> bool,
) -> Result<bool, Response> {
    let mut buffer = [0; 4096];
    loop {
        if !wait() {
            return Err(Response::refusal(408, "the request took too long"));
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                return Ok(true);
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
                ) => {}
            // The connection is gone.
            Err(_) => return Ok(false),
        }
    }
}

/// Takes one request from a connection and sends what `answer` makes of it.
pub(super) fn exchange(mut stream: TcpStream, answer: impl FnOnce(&Request) -> Response) {
    let Ok(clock) = stream.try_clone() else { return };
    let deadline = Instant::now() + PATIENCE;
    let response = match Request::read(&mut stream, || time_is_left(&clock, deadline)) {
        Ok(Some(request)) => answer(&request),
        Ok(None) => return,
        Err(refusal) => refusal,
    };
    send(&mut stream, &response);
    linger(&mut stream);
}

/// Sends a response. Whoever has gone does not need it.
pub(super) fn send(stream: &mut TcpStream, response: &Response) {
    let deadline = Instant::now() + PATIENCE;
    let head = head(response);
    for mut rest in [head.as_bytes(), &response.body] {
        while !rest.is_empty() {
            if !time_is_left(stream, deadline) {
                return;
            }
            match stream.write(rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

/// Ends a connection and drops what the other side has still to say: with bytes unread it would be reset before the answer is
/// read.
fn linger(stream: &mut TcpStream) {
    let (deadline, mut buffer, mut dropped) = (Instant::now() + LINGER, [0; 4096], 0);
    if stream.shutdown(Shutdown::Write).is_ok() {
        while dropped < MAX_DROPPED && time_is_left(stream, deadline) {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => dropped += count,
                _ => return,
            }
        }
    }
}

/// Whether there is time left; then the connection's next read or write takes no longer.
fn time_is_left(stream: &TcpStream, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let set = || stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
    !left.is_zero() && set().is_ok()
}

/// First line and headers of a response. The page may load nothing but what this program serves, and no other page may
/// show it or read from it.
fn head(response: &Response) -> String {
    let reason = match response.status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let keep = if response.is_lasting { "private, max-age=3600, immutable" } else { "no-store" };
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: {keep}\r\n\
         Content-Security-Policy: default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n",
        response.status,
        response.content_type,
        response.body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Request>, u16> {
        let found = Request::read(&mut text.as_bytes(), || true);
        found.map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_request_is_read_whole() {
        let request =
            read("POST /label?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdef").unwrap().unwrap();
        assert_eq!((&*request.method, &*request.path, &*request.body), ("POST", "/label", &b"abc"[..]));
        assert_eq!((request.header("host"), request.header("origin")), (Some("a"), None));
        let request = read("GET / HTTP/1.1\r\nhost: a\r\nHOST: b\r\n\r\n").unwrap().unwrap();
        assert!(request.has("host") && request.header("host").is_none(), "which one is meant is not known");
        assert_eq!(read(""), Ok(None));
    }

    #[test]
    fn what_is_malformed_or_too_large_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        let with = |header: &str| format!("POST / HTTP/1.1\r\n{header}\r\n\r\n");
        for (text, status) in [
            ("\x16\x03\x01\x02", 400),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHo", 400),
            (&long, 431),
            (&many, 400),
            (&with("Content-Length: 5000"), 413),
            (&with("Content-Length: 99999999999999999999999"), 413),
            (&with("Content-Length: -1"), 400),
            (&with("Content-Length: +1"), 400),
            (&with("Content-Length: "), 400),
            (&with("Content-Length: 1\r\nContent-Length: 2"), 400),
            (&with("Transfer-Encoding: chunked"), 501),
            (&with("Content-Length: 9"), 400),
        ] {
            assert_eq!(read(text), Err(status), "{text:.60}");
        }
    }

    #[test]
    fn patience_ends() {
        let mut left = 3;
        let found = Request::read(&mut Drip, || {
            left -= 1;
            left > 0
        });
        assert_eq!(found.unwrap_err().status, 408);
    }

    /// Sends a byte at a time, and never a whole request.
    struct Drip;

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer[0] = b'G';
            Ok(1)
        }
    }
}
