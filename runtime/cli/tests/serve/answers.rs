//! What is answered to whom.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::*;

#[test]
fn an_image_is_answered_as_run_answers_it() {
    for name in ["colours_u8.onnx", "colours_f32.onnx"] {
        let server = Server::of(&fixture(name), &[]);
        for colour in ["red", "green", "blue"] {
            let file = fixture(&format!("{colour}.png"));
            let run = command(&[&"run", &fixture(name), &file, &"--json", &"-k", &"3"]).output().unwrap();
            let wanted: Value = serde_json::from_slice(&run.stdout).unwrap();
            let answer = server.post("/classify?top_k=3", &fs::read(&file).unwrap());
            assert_eq!(answer.code, 200);
            let found = answer.json();
            assert_eq!(found["results"][0]["predictions"], wanted["results"][0]["predictions"], "{name}");
            assert_eq!((&found["failed"], found["results"].as_array().unwrap().len()), (&0.into(), 1));
            assert!(found["results"][0]["ms"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn each_route_answers() {
    let server = Server::start(&[]);
    let health = server.get("/health").json();
    assert_eq!((&health["status"], &health["model"]["labels"][0]), (&"ok".into(), &"red".into()));
    let page = server.get("/");
    assert!(page.code == 200 && page.text().contains("<!doctype html>"));
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    let embedding = server.post("/embed", &red()).json()["results"][0]["embedding"].clone();
    assert_eq!(embedding.as_array().unwrap().len(), 8);
    let map = server.post("/explain?class=blue", &red());
    assert_eq!((map.code, map.header("Content-Type")), (200, Some("image/png")));
    assert!(map.body.starts_with(b"\x89PNG"));
    assert_eq!(server.post("/classify", b"no image").code, 422);
    let metrics = server.get("/metrics").text();
    for line in [
        "smalti_requests_total{path=\"/classify\",code=\"422\"} 1",
        "smalti_requests_total{path=\"/explain\",code=\"200\"} 1",
        "smalti_request_duration_seconds_count{path=\"/embed\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    for name in ["process_resident_memory_bytes", "smalti_connections"] {
        assert!(!cfg!(target_os = "linux") || server.metric(name) > 0.0);
    }
    // Several requests on a connection.
    let mut stream = server.connect();
    for _ in 0..3 {
        let request = request("localhost", "POST", "/classify", &[], &red());
        std::io::Write::write_all(&mut stream, &request).unwrap();
        assert_eq!(read(&mut stream).unwrap().code, 200);
    }
}

#[test]
fn browsers_are_told_what_the_page_may_do() {
    let server = Server::start(&[]);
    for path in ["/", "/health", "/nothing"] {
        let answer = server.get(path);
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    }
}

#[test]
fn what_cannot_be_answered_is_refused_with_its_code() {
    let server = Server::start(&[]);
    let own = format!("Origin: http://{}", server.address);
    for (code, method, path, headers) in [
        (404, "GET", "/nothing", &[][..]),
        (404, "GET", "/../../etc/passwd", &[]),
        (404, "GET", "//", &[]),
        (405, "GET", "/classify", &[]),
        (405, "POST", "/", &[]),
        (405, "DELETE", "/health", &[]),
        (405, "OPTIONS", "/classify", &[]),
        (405, "BREW", "/classify", &[]),
        (400, "POST", "/classify?top_k=no", &[]),
        (400, "POST", "/embed?x=1", &[]),
        (400, "POST", "/explain?class=mauve", &[]),
        (403, "POST", "/classify", &["Origin: http://evil.example"]),
        (403, "POST", "/classify", &["Origin: null"]),
        (403, "GET", "/", &["Host: evil.example"]),
        (403, "POST", "/classify", &["Host: evil.example", "Origin: http://evil.example"]),
        (400, "GET", "/", &["Host: localhost", "Host: localhost"]),
        (400, "GET", "http://localhost/", &[]),
        (200, "GET", "/health", &["Host: localhost"]),
        (200, "POST", "/classify", &[&own]),
    ] {
        let answer = server.request(method, path, headers, if method == "POST" { &b"x"[..] } else { b"" });
        // One byte is no image.
        let wanted = if code == 200 && method == "POST" { 422 } else { code };
        assert_eq!(answer.code, wanted, "{method} {path} {headers:?}: {}", answer.text());
        if code >= 400 {
            assert!(answer.json()["error"].is_string());
        }
    }
    assert_eq!(server.get("/classify").header("Allow"), Some("POST"));
    assert_eq!(server.send(b"GET /health HTTP/1.1\r\n\r\n").unwrap().code, 400);
    let head = server.send(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(head.is_none_or(|answer| answer.code == 200));
    assert!(server.is_well());
}

#[test]
fn only_the_token_opens_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "s3cret-token\n").unwrap();
    let by_flag: Server = Server::start(&[&"--token", &"s3cret-token"]);
    for server in [by_flag, Server::start(&[&"--token-file", &file])] {
        let code = |path: &str, headers: &[&str]| server.request("POST", path, headers, &red()).code;
        assert_eq!(code("/classify", &["Authorization: Bearer s3cret-token"]), 200);
        for header in [
            "X: y",
            "Authorization: Bearer s3cret-toke",
            "Authorization: s3cret-token",
            "Authorization: Bearer ",
        ] {
            for path in ["/classify", "/embed", "/explain"] {
                assert_eq!(code(path, &[header]), 401, "{header}");
            }
        }
        let refused = server.get("/metrics");
        assert_eq!((refused.code, refused.header("WWW-Authenticate")), (401, Some("Bearer")));
        // The page asks for it, and health says no more than that the server lives.
        assert_eq!((server.get("/").code, &server.get("/health").json()["model"]), (200, &Value::Null));
    }
}

#[test]
fn other_machines_need_a_token() {
    for (args, words) in [
        (&["--listen", "0.0.0.0:0"][..], "--token-file"),
        (&["--listen", "[::]:0"], "--token-file"),
        (&["--listen", "127.0.0.1"], "ADDRESS:PORT"),
        (&["--token", "two words"], "without spaces"),
        (&["--token", "a", "--token-file", "b"], "cannot be used with"),
        (&["--sessions", "0"], "1..=256"),
    ] {
        let model = model();
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"serve", &model];
        all.extend(args.iter().map(|arg| arg as &dyn AsRef<std::ffi::OsStr>));
        let output = command(&all).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(words), "{args:?}: {said}");
    }
    let taken = Server::start(&[]);
    let listen = taken.address.to_string();
    let output = command(&[&"serve", &model(), &"--listen", &listen]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(6) && said.contains(&listen), "{said}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_once_requests_are_answered() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut server = Server::start(&[]);
        // One has said nothing, one is between two requests, one has sent half an image.
        let _silent = server.connect();
        let mut idle = server.connect();
        std::io::Write::write_all(&mut idle, &request("localhost", "POST", "/classify", &[], &red()))
            .unwrap();
        assert_eq!(read(&mut idle).unwrap().code, 200);
        let mut half = server.connect();
        let whole = request("localhost", "POST", "/classify", &[], &red());
        let (first, rest) = whole.split_at(whole.len() / 2);
        std::io::Write::write_all(&mut half, first).unwrap();
        assert!(server.is_well());
        server.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.child.try_wait().unwrap(), None, "a request is in flight");
        assert!(std::net::TcpStream::connect(server.address).is_err(), "it takes no more");
        std::io::Write::write_all(&mut half, rest).unwrap();
        let answer = read(&mut half).unwrap();
        assert_eq!(answer.json()["results"][0]["predictions"][0]["label"], "red");
        assert_eq!(server.child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn a_model_that_is_replaced_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let (place, new) = (folder.path().join("model.onnx"), folder.path().join("new"));
    fs::copy(model(), &place).unwrap();
    let server = Server::of(&place, &[&"--watch", &"--watch-interval", &"0.02"]);
    assert!(server.is_well() && server.metric("smalti_model_swaps_total") == 0.0);
    // The same weights under another description.
    let mut bytes = fs::read(model()).unwrap();
    let at = bytes.windows(5).position(|five| five == b"green").unwrap();
    bytes[at..at + 5].copy_from_slice(b"gruen");
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, &place).unwrap();
    let (green, start) = (fs::read(fixture("green.png")).unwrap(), Instant::now());
    loop {
        let answer = server.post("/classify", &green).json();
        if answer["results"][0]["predictions"][0]["label"] == "gruen" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.metric("smalti_model_swaps_total"), 1.0);
}

#[test]
fn what_it_says_goes_where_it_belongs() {
    let mut child = command(&[&"serve", &model(), &"--listen", &"127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}
