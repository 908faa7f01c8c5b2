//! A server that is taught, and one that says what is unusual.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::*;

/// An image of none of the model's classes.
fn white(nudge: u8) -> Vec<u8> {
    paint([170, 170, 170], nudge, None)
}

/// A server with a class bank.
fn with_bank(bank: &Path) -> Server {
    Server::start(&[&"--bank", &bank])
}

/// What a request changed; none of it may fail.
fn teach(server: &Server, class: &str, image: &[u8]) -> Value {
    let answer = server.post(&format!("/learn?label={class}"), image);
    assert_eq!(answer.code, 200, "{}", answer.text());
    answer.json()
}

fn undo(server: &Server) -> Answer {
    server.request("DELETE", "/learn", &[], &[])
}

#[test]
fn what_is_taught_is_answered_saved_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (bank, unseen) = (at("classes.bank"), white(14));
    fs::write(at("unseen.png"), &unseen).unwrap();
    let server = with_bank(&bank);
    let before = server.label(&unseen);
    assert_ne!(before, "white");
    assert_eq!(server.get("/learn").json()["classes"], json!([]));
    assert!(!bank.exists(), "nothing was taught");

    // One image says nothing of how alike is alike enough.
    let said = teach(&server, "white", &white(0));
    assert_eq!(
        (&said["class"], &said["added"], &said["recognises"]),
        (&"white".into(), &1.into(), &false.into())
    );
    assert_eq!(server.label(&unseen), before);
    (1..5).for_each(|i| assert_eq!(teach(&server, "white", &white(8 * i))["recognises"], true));
    assert_eq!(server.label(&unseen), "white");
    assert_eq!(teach(&server, "white", &white(0))["added"], 0, "the same image counts once");
    let map = server.post("/explain?class=white", &unseen);
    assert!(map.code == 200 && map.body.starts_with(b"\x89PNG"));

    // The file says the same, to other programs and to the next server.
    let listed = json(&[&"learn", &"list", &model(), &bank]);
    assert_eq!(listed["classes"], json!([{ "name": "white", "images": 5 }]));
    let run = json(&[&"run", &model(), &at("unseen.png"), &"--bank", &bank, &"-k", &"4"]);
    let answer = server.post("/classify?top_k=4", &unseen).json();
    assert_eq!(answer["results"][0]["predictions"], run["results"][0]["predictions"]);
    let next = with_bank(&bank);
    assert_eq!(
        (next.label(&unseen), next.get("/learn").json()["can_undo"].clone()),
        ("white".into(), false.into())
    );

    for left in (0..5).rev() {
        let said = undo(&server).json();
        assert_eq!((&said["class"], &said["removed"]), (&"white".into(), &1.into()));
        assert_eq!(
            said["classes"].as_array().unwrap().first().map_or(0, |one| one["images"].as_u64().unwrap()),
            left
        );
        assert_eq!(said["can_undo"], left > 0);
    }
    assert_eq!((undo(&server).code, server.label(&unseen)), (409, before));
}

#[test]
fn what_another_program_taught_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (bank, image) = (folder.path().join("classes.bank"), folder.path().join("white.png"));
    let server = with_bank(&bank);
    teach(&server, "grey", &paint([90, 90, 90], 0, None));
    fs::write(&image, white(0)).unwrap();
    json(&[&"learn", &"add", &model(), &bank, &"white", &image]);
    let said = teach(&server, "grey", &paint([90, 90, 90], 9, None));
    assert_eq!(said["classes"], json!([{ "name": "grey", "images": 2 }, { "name": "white", "images": 1 }]));
    // And what it removed is gone, without harm.
    json(&[&"learn", &"remove", &model(), &bank, &"grey"]);
    assert_eq!(undo(&server).json()["removed"], 0);
    assert!(server.is_well());
}

#[test]
fn many_teach_at_once_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let bank = folder.path().join("classes.bank");
    let server = Server::of(&fixture("colours_f32.onnx"), &[&"--bank", &bank, &"--sessions", &"4"]);
    let added = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..8u8 {
            let (server, added) = (&server, &added);
            scope.spawn(move || {
                for i in 0..6 {
                    let said = teach(
                        server,
                        &format!("class{}", i % 3),
                        &paint([200, 10 * client, 20], 9 * i, None),
                    );
                    added.fetch_add(said["added"].as_u64().unwrap(), Ordering::Relaxed);
                    assert_eq!(server.post("/classify", &red()).code, 200);
                }
            });
        }
    });
    let count = |listed: &Value| -> u64 {
        listed["classes"].as_array().unwrap().iter().map(|class| class["images"].as_u64().unwrap()).sum()
    };
    let listed = json(&[&"learn", &"list", &fixture("colours_f32.onnx"), &bank]);
    assert_eq!(
        (count(&listed), count(&server.get("/learn").json())),
        (added.load(Ordering::Relaxed), count(&listed))
    );
    assert!(count(&listed) >= 40, "{listed}");
}

#[cfg(unix)]
#[test]
fn a_server_that_is_killed_leaves_every_lesson_that_it_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let bank = folder.path().join("classes.bank");
    let mut confirmed = 0;
    for round in 0..4u8 {
        let mut server = with_bank(&bank);
        let mut stream = server.connect();
        for i in 0..20u8 {
            let image = paint([10 * i, 60 * round, 90], 3 * i, None);
            stream.write_all(&request("localhost", "POST", "/learn?label=a", &[], &image)).unwrap();
            if i == 10 + round {
                std::thread::sleep(Duration::from_micros(400 * u64::from(round)));
                server.child.kill().unwrap();
                break;
            }
            confirmed += read(&mut stream).unwrap().json()["added"].as_u64().unwrap();
        }
        server.child.wait().unwrap();
        let listed = json(&[&"learn", &"list", &model(), &bank]);
        let found = listed["classes"][0]["images"].as_u64().unwrap();
        assert!(found == confirmed || found == confirmed + 1, "{found} of {confirmed}");
        confirmed = found;
    }
}

#[test]
fn a_bank_that_cannot_be_saved_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, aside) = (folder.path().join("banks"), folder.path().join("aside"));
    fs::create_dir(&inner).unwrap();
    let server = with_bank(&inner.join("classes.bank"));
    teach(&server, "white", &white(0));
    let before = server.get("/learn").json();
    fs::rename(&inner, &aside).unwrap();
    let refused = server.post("/learn?label=white", &white(9));
    assert!(refused.code == 500 && refused.text().contains("classes.bank"), "{}", refused.text());
    assert_eq!(undo(&server).code, 500);
    assert_eq!(server.get("/learn").json(), before);
    assert!(server.is_well());
    fs::rename(&aside, &inner).unwrap();
    assert_eq!(teach(&server, "white", &white(9))["classes"][0]["images"], 2);
}

#[test]
fn lessons_are_refused_as_other_requests_are() {
    let folder = tempfile::tempdir().unwrap();
    let (bank, image) = (folder.path().join("classes.bank"), white(0));
    let server = Server::start(&[&"--bank", &bank, &"--max-body-bytes", &"20000"]);
    let long = format!("/learn?label={}", "x".repeat(300));
    for (code, method, path, headers, body) in [
        (400, "POST", "/learn", &[][..], &image[..]),
        (400, "POST", "/learn?label=", &[], &image),
        (400, "POST", "/learn?label=%20", &[], &image),
        (400, "POST", "/learn?class=a", &[], &image),
        (400, "POST", &long, &[], &image),
        (422, "POST", "/learn?label=a", &[], b"no image"),
        (413, "POST", "/learn?label=a", &[], &[7; 20_001]),
        (403, "POST", "/learn?label=a", &["Origin: http://evil.example"], &image),
        (403, "DELETE", "/learn", &["Origin: http://evil.example"], b""),
        (403, "DELETE", "/learn", &["Host: evil.example"], b""),
        (400, "DELETE", "/learn?label=a", &[], b""),
        (405, "PUT", "/learn?label=a", &[], &image),
        (409, "DELETE", "/learn", &[], b""),
        (404, "POST", "/anomaly", &[], &image),
        (404, "POST", "/anomaly/map", &[], &image),
    ] {
        let answer = server.request(method, path, headers, body);
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text());
        assert!(answer.json()["error"].is_string() || code == 422);
    }
    assert_eq!(server.request("PUT", "/learn", &[], &[]).header("Allow"), Some("GET, HEAD, POST, DELETE"));
    assert!(!bank.exists() && server.is_well());

    let plain = Server::start(&[]);
    for method in ["GET", "POST", "DELETE"] {
        let refused = plain.request(method, "/learn", &[], &[]);
        assert!(refused.code == 404 && refused.text().contains("--bank FILE"), "{}", refused.text());
    }
    let paths = |server: &Server| server.get("/health").json()["paths"].as_array().unwrap().len();
    assert_eq!((paths(&plain), paths(&server)), (6, 7));
    // A signature would not hold after a lesson.
    let (signed, place) = (fixture("../signed/colours_u8.onnx.minisig"), folder.path().join("model.onnx"));
    fs::copy(model(), &place).unwrap();
    fs::copy(signed, folder.path().join("model.onnx.minisig")).unwrap();
    let signed = Server::of(&place, &[&"--bank", &bank, &"--pubkey", &fixture("../signed/test.pub")]);
    let refused = signed.post("/learn?label=a", &image);
    assert!(
        refused.code == 404 && refused.text().contains("--pubkey") && signed.is_well(),
        "{}",
        refused.text()
    );
    let closed = Server::start(&[&"--bank", &bank, &"--token", &"secret"]);
    assert_eq!((closed.post("/learn?label=a", &image).code, undo(&closed).code), (401, 401));
    assert_eq!(closed.get("/health").json()["paths"], Value::Null);
}

#[test]
fn files_of_another_model_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (bank, image) = (folder.path().join("classes.bank"), folder.path().join("white.png"));
    fs::write(&image, white(0)).unwrap();
    json(&[&"learn", &"add", &model(), &bank, &"white", &image]);
    let missing = folder.path().join("none/classes.bank");
    for (code, flag, file, more) in [
        (3, "--bank", &bank, &[][..]),
        (3, "--anomaly", &bank, &[]),
        (3, "--anomaly", &image, &[]),
        (6, "--anomaly", &missing, &[]),
        (6, "--bank", &missing, &[]),
        (2, "--bank", &bank, &["--watch"]),
        (2, "--anomaly", &bank, &["--watch"]),
    ] {
        let other = fixture("colours_f32.onnx");
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"serve", &other, &flag, file];
        args.extend(more.iter().map(|arg| arg as &dyn AsRef<std::ffi::OsStr>));
        let output = command(&args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flag} {file:?} {more:?}: {said}");
    }
}

#[test]
fn what_is_unusual_is_scored_and_drawn_as_the_command_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("good")).unwrap();
    let good = |i: u8| paint([90, 80, 70], 3 * i, None);
    (0..20).for_each(|i| fs::write(at("good").join(format!("{i}.png")), good(i)).unwrap());
    let bad = paint([90, 80, 70], 4, Some([0, 250, 60]));
    fs::write(at("bad.png"), &bad).unwrap();
    json(&[&"anomaly", &"fit", &model(), &at("d"), &at("good"), &"--false-alarms", &"10%"]);
    let scored = json(&[&"anomaly", &"score", &model(), &at("d"), &at("bad.png"), &"-o", &at("map.png")]);
    let server = Server::start(&[&"--anomaly", &at("d"), &"--bank", &at("classes.bank")]);
    let found = |image: &[u8]| server.post("/anomaly", image).json()["results"][0].clone();
    let (usual, unusual) = (found(&good(9)), found(&bad));
    for field in ["score", "unusual", "tokens", "embedding"] {
        assert_eq!(unusual[field], scored["results"][0][field], "{field}");
    }
    assert!(
        unusual["unusual"] == true && usual["score"].as_f64() < unusual["score"].as_f64(),
        "{usual} {unusual}"
    );
    let map = server.post("/anomaly/map", &bad);
    assert_eq!(
        (map.header("Content-Type"), &map.body),
        (Some("image/png"), &fs::read(at("map.png")).unwrap())
    );
    assert_eq!(
        (server.post("/anomaly", b"no image").code, server.post("/anomaly?x=1", &bad).code),
        (422, 400)
    );
    // Both at once, and classes as ever.
    teach(&server, "odd", &bad);
    assert!(server.is_well());
}
