//! Many clients, and for long.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::hostile;
use crate::server::*;

const CLIENTS: usize = 64;

/// A question and the label that is to come back.
type Question = (String, Vec<u8>);

fn question(server: &Server, image: &[u8]) -> Question {
    (server.label(image), request("localhost", "POST", "/classify", &[], image))
}

/// Images of the three colours that the fixture tells apart.
fn colours(server: &Server) -> Vec<Question> {
    let questions = ["red", "green", "blue"].map(|colour| {
        let question = question(server, &std::fs::read(fixture(&format!("{colour}.png"))).unwrap());
        assert_eq!(question.0, colour);
        question
    });
    questions.into()
}

/// The first photos of the archive in the repository.
fn photos(count: usize) -> Vec<Vec<u8>> {
    let tar = std::fs::read(fixture("../../../models/photos/groceries.tar")).unwrap();
    let (mut rest, mut photos) = (&tar[..], Vec::new());
    while photos.len() < count {
        let (head, content) = rest.split_at(512);
        let size = std::str::from_utf8(&head[124..135]).unwrap().trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).unwrap();
        if content[..size].starts_with(b"\xff\xd8") {
            photos.push(content[..size].to_vec());
        }
        rest = &content[size.next_multiple_of(512)..];
    }
    photos
}

/// Lets 64 clients ask one question after another, each on a connection that it keeps, until `goes_on` says no; the time of
/// each answer, in order.
fn ask_at_once(
    server: &Server,
    questions: &[Question],
    goes_on: impl Fn(usize) -> bool + Sync,
) -> Vec<Duration> {
    let client = |number: usize| {
        let (mut stream, mut times) = (server.connect(), Vec::new());
        while goes_on(times.len()) {
            let (label, request) = &questions[(number + times.len()) % questions.len()];
            let start = Instant::now();
            stream.write_all(request).unwrap();
            let answer = read(&mut stream).unwrap();
            times.push(start.elapsed());
            assert_eq!(answer.json()["results"][0]["predictions"][0]["label"], **label);
        }
        times
    };
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    times.sort_unstable();
    times
}

/// Resident memory in MiB.
fn memory(server: &Server) -> f64 {
    server.metric("process_resident_memory_bytes") / 1048576.0
}

#[test]
fn sixty_four_clients_are_answered_rightly_and_memory_stays() {
    let server = Server::start(&[&"--sessions", &"2"]);
    let questions = colours(&server);
    ask_at_once(&server, &questions, |done| done < 10);
    if !cfg!(target_os = "linux") {
        return;
    }
    let before = memory(&server);
    assert_eq!(ask_at_once(&server, &questions, |done| done < 60).len(), 60 * CLIENTS);
    let after = memory(&server);
    assert!(after < before + 8.0, "{before:.1} MiB, after 3,840 requests {after:.1} MiB");
}

/// Teaches the server a class, image by image, and takes all of it back, again and again.
fn teach_and_forget(server: &Server, goes_on: impl Fn() -> bool) -> usize {
    let mut lessons = 0;
    while goes_on() {
        for i in 0..20u8 {
            let image = paint([250, 10 * i, 250], 0, None);
            assert_eq!(server.post("/learn?label=something+else", &image).code, 200);
            lessons += 1;
        }
        while server.request("DELETE", "/learn", &[], &[]).code == 200 {}
    }
    lessons
}

#[test]
#[ignore = "takes minutes: SMALTI_SERVE_SECONDS, by default 300, and SMALTI_SERVE_MALFORMED, by default 100,000 requests"]
fn five_minutes_of_clients_and_a_hundred_thousand_malformed_requests() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seconds, malformed) =
        (number("SMALTI_SERVE_SECONDS", 300), number("SMALTI_SERVE_MALFORMED", 100_000));
    let (folder, model) =
        (tempfile::tempdir().unwrap(), fixture("../../../models/ready/groceries-int8.onnx"));
    let server = Server::of(&model, &[&"--bank", &folder.path().join("classes.bank")]);
    let questions: Vec<_> = photos(8).iter().map(|photo| question(&server, photo)).collect();
    ask_at_once(&server, &questions, |done| done < 20);
    let (before, start) = (memory(&server), Instant::now());
    let goes_on = || start.elapsed().as_secs() < seconds;
    let (times, lessons) = std::thread::scope(|scope| {
        let teacher = scope.spawn(|| teach_and_forget(&server, goes_on));
        (ask_at_once(&server, &questions, |_| goes_on()), teacher.join().unwrap())
    });
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let (after, answers) = (memory(&server), times.len());
    let rate = answers as f64 / start.elapsed().as_secs_f64();
    println!(
        "{CLIENTS} clients, {seconds} s: {answers} answers and {lessons} lessons, {rate:.0} answers a second"
    );
    println!("p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms", at(0.5), at(0.99), at(1.0));
    println!("resident memory: {before:.1} MiB before, {after:.1} MiB after");
    assert!(after < before + 16.0 && at(0.99) < 5000.0);
    std::thread::scope(|scope| {
        for seed in 100..108 {
            let server = &server;
            scope.spawn(move || hostile::throw(server, malformed as usize / 8, seed));
        }
    });
    let last = memory(&server);
    println!("{malformed} malformed requests: the server answers, resident memory {last:.1} MiB");
    assert!(last < after + 32.0);
}
