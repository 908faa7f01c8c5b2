//! Clients that send what they should not, too much, too slowly, or nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::server::*;

/// A request that is wrong: garbage, a damaged head, a damaged image, a length that lies, an end in the middle.
pub fn malformed(rng: &mut Rng, image: &[u8]) -> Vec<u8> {
    let path = ["/classify", "/embed", "/explain", "/learn", "/anomaly", "/", "/classify?top_k=%00", "*"]
        [rng.usize(..8)];
    let method = ["POST", "GET", "PUT", "DELETE", "\0", "POST POST"][rng.usize(..6)];
    let good = request("localhost", method, path, &["Connection: close"], image);
    let mut bytes = match rng.usize(..8) {
        0 => (0..rng.usize(..600)).map(|_| rng.u8(..)).collect(),
        1 => good[..rng.usize(..good.len())].to_vec(),
        2 => {
            let chunked = ["Transfer-Encoding: chunked", "Connection: close"];
            let body =
                ["ffffffffffffffff\r\nx", "-1\r\n", "5\r\nhello\r\n0\r\n\r\n", "zz\r\n"][rng.usize(..4)];
            [&request("localhost", "POST", path, &chunked, &[])[..], body.as_bytes()].concat()
        }
        3 => {
            let lie = ["-1", "99999999999999999999", "1e3", "5, 6", ""][rng.usize(..5)];
            request("localhost", "POST", path, &[&format!("Content-Length: {lie}")], &[])
        }
        4 => {
            let long = format!("X-{}: {}", rng.usize(..9), "a".repeat(rng.usize(..40_000)));
            request("localhost", method, path, &[&long, "Connection: close"], image)
        }
        5 => {
            let headers: Vec<String> = (0..rng.usize(..300)).map(|i| format!("H{i}: {i}")).collect();
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            request("localhost", method, path, &headers, &[])
        }
        _ => good,
    };
    for _ in 0..rng.usize(..12) {
        if !bytes.is_empty() {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
    }
    bytes
}

/// Sends that many; each is answered or ended, and the server answers others as before.
pub fn throw(server: &Server, count: usize, seed: u64) {
    let (mut rng, image) = (Rng::with_seed(seed), red());
    let label = server.label(&image);
    for i in 0..count {
        let bytes = malformed(&mut rng, &image);
        let mut stream = server.connect();
        // It may be closed before all is sent, or before this side is.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        if let Some(answer) = read(&mut stream) {
            assert!(answer.code != 500, "{:?}", String::from_utf8_lossy(&bytes));
        }
        if i % 500 == 0 {
            assert_eq!(server.label(&image), label);
        }
    }
    assert_eq!(server.label(&image), label);
}

#[test]
fn three_thousand_malformed_requests_do_no_harm() {
    let server = Server::start(&[]);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let server = &server;
            scope.spawn(move || throw(server, 750, seed));
        }
    });
    assert!(server.metric("smalti_dropped_connections_total{reason=\"malformed\"}") > 100.0);
}

#[test]
fn bodies_beyond_the_limit_are_refused_before_they_are_sent() {
    let server = Server::start(&[&"--max-body-bytes", &"20000"]);
    for bytes in [
        &b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20001\r\n\r\n"[..],
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615\r\n\r\n",
        &[
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4e21\r\n",
            &[7; 20_001][..],
            b"\r\n",
        ]
        .concat(),
    ] {
        let answer = server.send(bytes).unwrap();
        assert!((400..500).contains(&answer.code), "{answer:?}");
    }
    let at_limit = server.request("POST", "/classify", &[], &[7; 20_000]);
    assert_eq!(at_limit.code, 422);
    assert!(server.is_well());
}

/// Whether the server ends a connection that goes on so within that time.
fn is_cut_off(stream: &mut TcpStream, limit: Duration, mut more: impl FnMut(&mut TcpStream)) -> bool {
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while start.elapsed() < limit {
        more(stream);
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => return true,
        }
    }
    false
}

#[test]
fn slow_clients_are_cut_off() {
    let server = Server::start(&[&"--timeout", &"0.5"]);
    let limit = Duration::from_secs(30);
    let head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n";
    // Nothing at all; a head that never ends; a body a byte at a time; half a body.
    assert!(is_cut_off(&mut server.connect(), limit, |_| ()));
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    assert!(is_cut_off(&mut stream, limit, |stream| drop(stream.write_all(b"a"))));
    let mut stream = server.connect();
    stream.write_all(head).unwrap();
    assert!(is_cut_off(&mut stream, limit, |stream| drop(stream.write_all(b"a"))));
    let mut stream = server.connect();
    stream.write_all(&[&head[..], &red()[..20]].concat()).unwrap();
    assert_eq!(read(&mut stream).unwrap().code, 408);
    // A connection that was used, and then is not.
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(is_cut_off(&mut stream, limit, |_| ()));
    assert!(server.metric("smalti_dropped_connections_total{reason=\"slow\"}") >= 3.0);
    assert!(server.is_well());
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let server = Server::start(&[&"--max-connections", &"3"]);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read(&mut stream).unwrap().code, 200);
        held.push(stream);
    }
    let refused = read(&mut server.connect());
    assert_eq!(refused.unwrap().code, 503);
    drop(held);
    let start = Instant::now();
    while server
        .send(&request("localhost", "GET", "/health", &[], &[]))
        .is_none_or(|answer| answer.code != 200)
    {
        assert!(start.elapsed() < Duration::from_secs(30), "slots come back");
    }
    assert!(server.is_well());
}
