//! Many clients, and for long.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::hostile;
use crate::server::*;

const CLIENTS: usize = 64;

/// Lets 64 clients ask one request after another, each on a connection that it keeps, until `goes_on` says no; the time of
/// each answer.
fn ask_at_once(server: &Server, goes_on: impl Fn(usize) -> bool + Sync) -> Vec<Duration> {
    let images = ["red", "green", "blue"].map(|colour| {
        let file = std::fs::read(fixture(&format!("{colour}.png"))).unwrap();
        (colour, request("localhost", "POST", "/classify", &[], &file))
    });
    let client = |number: usize| {
        let (mut stream, mut times) = (server.connect(), Vec::new());
        while goes_on(times.len()) {
            let (colour, request) = &images[(number + times.len()) % images.len()];
            let start = Instant::now();
            stream.write_all(request).unwrap();
            let answer = read(&mut stream).unwrap();
            times.push(start.elapsed());
            assert_eq!(answer.json()["results"][0]["predictions"][0]["label"], *colour);
        }
        times
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// Resident memory in MiB.
fn memory(server: &Server) -> f64 {
    server.metric("process_resident_memory_bytes") / 1048576.0
}

#[test]
fn sixty_four_clients_are_answered_rightly_and_memory_stays() {
    let server = Server::start(&[&"--sessions", &"2"]);
    ask_at_once(&server, |done| done < 10);
    if !cfg!(target_os = "linux") {
        return;
    }
    let before = memory(&server);
    assert_eq!(ask_at_once(&server, |done| done < 60).len(), 60 * CLIENTS);
    let after = memory(&server);
    assert!(after < before + 8.0, "{before:.1} MiB, after 3,840 requests {after:.1} MiB");
}

#[test]
#[ignore = "takes minutes: SMALTI_SERVE_SECONDS, by default 300, and 100,000 malformed requests"]
fn five_minutes_of_clients_and_a_hundred_thousand_malformed_requests() {
    let seconds = std::env::var("SMALTI_SERVE_SECONDS").map_or(300, |text| text.parse().unwrap());
    let server = Server::start(&[]);
    ask_at_once(&server, |done| done < 20);
    let (before, start) = (memory(&server), Instant::now());
    let mut times = ask_at_once(&server, |_| start.elapsed().as_secs() < seconds);
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let after = memory(&server);
    println!(
        "{CLIENTS} clients, {seconds} s: {} answers, p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    println!("resident memory: {before:.1} MiB before, {after:.1} MiB after");
    assert!(after < before + 16.0);
    std::thread::scope(|scope| {
        for seed in 100..108 {
            let server = &server;
            scope.spawn(move || hostile::throw(server, 12_500, seed));
        }
    });
    let last = memory(&server);
    println!("100,000 malformed requests: the server answers, resident memory {last:.1} MiB");
    assert!(last < after + 32.0);
}
