//! `smalti select` and `smalti label`: from a folder without labels to a table that `smalti train` takes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Folder, read};

/// Stripes of 16 pixels, level or upright, each image a little different; grey levels are far from those of others.
fn draw(path: &Path, upright: bool, number: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_fn(16, 16, |x, y| {
        let place = if upright { x } else { y };
        let bright = (place + number) / 3 % 2 == 1;
        image::Rgb([
            if bright { 230 - 4 * number as u8 } else { 20 + 5 * number as u8 },
            90 + 6 * number as u8,
            120,
        ])
    });
    image.save_with_format(path, image::ImageFormat::Png).unwrap();
}

/// 24 images without labels in `photos`, under names that a table, a page or a shell may stumble over. The first letter says
/// what they show.
fn photos(folder: &Folder) {
    let names = ["%", " %", "a, %", "%'\"", "<script>alert(1)<%>", "#%", "é %", "x\\%", "; |%"];
    for number in 0..24u32 {
        let kind = if number % 2 == 0 { "level" } else { "upright" };
        let name = names[number as usize / 2 % names.len()].replace('%', &number.to_string());
        let mut file = OsString::from(format!("my photos/{kind} {name}"));
        #[cfg(unix)]
        if number > 21 {
            use std::os::unix::ffi::OsStringExt;
            file.push(OsString::from_vec(b"caf\xe9".to_vec()));
        }
        file.push(".png");
        draw(&folder.path("").join(file), number % 2 == 1, number);
    }
}

/// A running `smalti label`, ended when this is dropped.
struct Page {
    child: Child,
    /// `127.0.0.1:PORT`.
    host: String,
}

impl Page {
    fn open(folder: &Folder, args: &[&str]) -> Page {
        let mut command = folder.command(&[&["label"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap());
        let mut said = String::new();
        while !said.contains("http://") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let host = said.split_once("http://").unwrap().1.split('/').next().unwrap().to_owned();
        Page { child, host }
    }

    /// Sends these bytes; the status and the body of what comes back.
    fn send(&self, request: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        assert!(head.contains("Content-Security-Policy: default-src 'self'"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), bytes[end + 4..].to_vec())
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).as_bytes())
    }

    fn post_with(&self, path: &str, headers: &str, body: &str) -> (u16, Vec<u8>) {
        let length = body.len();
        self.send(
            format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
    }

    /// What the page sends; the state that comes back.
    fn post(&self, path: &str, body: &Value) -> Value {
        let headers =
            format!("Host: {0}\r\nOrigin: http://{0}\r\nContent-Type: application/json\r\n", self.host);
        let (status, answer) = self.post_with(path, &headers, &body.to_string());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&self.get("/state").1).unwrap()
    }

    fn label(&self, state: &Value, class: &str) -> Value {
        self.post("/label", &json!({"image": state["image"]["id"], "class": class}))
    }

    /// Labels every image by the first word of its name.
    fn label_all(&self) {
        let mut state = self.state();
        while let Some(name) = state["image"]["name"].as_str() {
            let class = name.split(' ').next().unwrap().to_owned();
            state = self.label(&state, &class);
        }
    }

    /// Ends it as Ctrl-C does: the exit code, what it wrote as results and as messages.
    fn interrupt(mut self) -> (Option<i32>, String, String) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn select(folder: &Folder, args: &[&str]) -> crate::support::Outcome {
    folder.run(&[&["select", "my photos", "-t2"], args].concat())
}

#[cfg(unix)]
#[test]
fn images_are_chosen_labelled_and_learned_from() {
    let folder = Folder::empty();
    photos(&folder);
    let found = select(&folder, &["-n8", "--out=pick, 1", "--copy=to sort"]).ok();
    assert!(found.err.contains("next: sort the images of 'to sort'"), "{}", found.err);
    let table = read(&folder.path("pick, 1/labels.csv"));
    assert_eq!(table.lines().count(), 9, "{table}");
    assert_eq!(std::fs::read_dir(folder.path("to sort")).unwrap().count(), 8);
    let sheet = image::open(folder.path("pick, 1/sheet.jpg")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (8 * 132 - 4, 128));

    let page = Page::open(&folder, &["my photos", "--labels=pick, 1/labels.csv", "--json"]);
    page.label_all();
    let (code, out, err) = page.interrupt();
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, said["labelled"].as_u64(), said["images"].as_u64()),
        (Some(0), Some(8), Some(8)),
        "{err}"
    );
    assert_eq!(said["classes"].as_object().unwrap().len(), 2, "{said}");
    assert!(!err.contains("next: "), "a program is not told: {err}");

    let small = [
        "--budget=4s",
        "--start=scratch",
        "--patch-size=4",
        "--dim=16",
        "--depth=1",
        "--heads=2",
        "-t2",
        "--json",
    ];
    let args = ["train", "my photos", "--labels=pick, 1/labels.csv", "--out=run"];
    let found = folder.run(&[&args[..], &small].concat()).json(&["labels", "images", "classes"]);
    assert_eq!((found["labels"].as_u64(), found["images"].as_u64()), (Some(8), Some(24)), "{found}");

    // The second round asks about what the classifier is not sure about, and keeps the labels of the first.
    let again = ["-n4", "--labels=pick, 1/labels.csv", "--init=run", "--out=second", "--json"];
    let found = select(&folder, &again).json(&["file", "number", "labelled", "by_uncertainty"]);
    assert_eq!((found["labelled"].as_u64(), found["by_uncertainty"].as_bool()), (Some(8), Some(true)));
    let second = read(&folder.path("second/labels.csv"));
    let rows =
        |text: &str| text.lines().skip(1).map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect();
    let (first, both): (HashSet<String>, HashSet<String>) = (rows(&table), rows(&second));
    assert_eq!((both.len(), both.is_superset(&first)), (12, true), "{second}");
    let page = Page::open(&folder, &["my photos", "--labels=second/labels.csv", "--init=run"]);
    let state = page.state();
    assert_eq!((state["labelled"].as_u64(), state["classes"].as_array().unwrap().len()), (Some(8), 2));
    let proposal = &state["image"]["proposal"];
    assert!(["level", "upright"].contains(&proposal["class"].as_str().unwrap()), "{state}");
    assert!((0.5..=1.0).contains(&proposal["probability"].as_f64().unwrap()), "{state}");
}

#[test]
fn labels_survive_a_kill_and_can_be_taken_back() {
    let folder = Folder::empty();
    (0..5).for_each(|i| draw(&folder.path(&format!("photos/{i}.png")), i % 2 == 1, i));
    let args = ["photos", "--labels=mine.csv", "--classes=cat,dog"];
    let page = Page::open(&folder, &args);
    let state = page.state();
    assert_eq!(state["classes"][1], json!({"name": "dog", "key": "2", "count": 0}));
    let state = page.label(&state, "dog");
    let state = page.label(&state, "owl, \"small\"");
    assert_eq!(read(&folder.path("mine.csv")).lines().nth(2), Some("1.png,\"owl, \"\"small\"\"\""));
    assert_eq!(state["image"]["place"].as_u64(), Some(3));
    let state = page.post("/undo", &json!({}));
    assert_eq!((state["image"]["place"].as_u64(), state["labelled"].as_u64()), (Some(2), Some(1)));
    assert!(!read(&folder.path("mine.csv")).contains("owl"));
    let state = page.post("/skip", &json!({"image": state["image"]["id"]}));
    page.label(&state, "cat");
    // SIGKILL: nothing is left to be saved.
    drop(page);
    assert_eq!(read(&folder.path("mine.csv")), "path,label\n0.png,dog\n1.png,\n2.png,cat\n3.png,\n4.png,\n");

    let page = Page::open(&folder, &args);
    let state = page.state();
    assert_eq!((state["labelled"].as_u64(), state["image"]["place"].as_u64()), (Some(2), Some(2)));
    let state = page.post("/back", &json!({}));
    assert_eq!(state["image"]["label"].as_str(), Some("dog"));
    assert_eq!(page.post("/forward", &json!({}))["image"]["place"].as_u64(), Some(2));
    let (code, out, err) = page.interrupt();
    assert_eq!((code, out.as_str()), (Some(0), "2 of 5 images labelled in mine.csv: cat 1, dog 1\n"));
    assert!(err.contains("next: smalti train photos --labels mine.csv"), "{err}");

    // Another program's changes are not written over.
    let page = Page::open(&folder, &args);
    std::fs::write(folder.path("mine.csv"), "path,label\n0.png,cow\n").unwrap();
    let headers = format!("Host: {}\r\nContent-Type: application/json\r\n", page.host);
    let body = json!({"image": page.state()["image"]["id"], "class": "cat"}).to_string();
    let (status, said) = page.post_with("/label", &headers, &body);
    assert!(status == 500 && String::from_utf8_lossy(&said).contains("changed by another program"));
    assert_eq!(read(&folder.path("mine.csv")), "path,label\n0.png,cow\n");
}

#[test]
fn the_page_answers_its_own_browser_alone() {
    let folder = Folder::empty();
    (0..2).for_each(|i| draw(&folder.path(&format!("photos/{i}.png")), i % 2 == 1, i));
    std::fs::write(folder.path("secret.png"), "secret").unwrap();
    std::fs::write(folder.path("photos/2.png"), "no image").unwrap();
    let page = Page::open(&folder, &["photos"]);
    for (path, holds) in [
        ("/", "<!doctype html>"),
        ("/style.css", "color-scheme"),
        ("/label.js", "use strict"),
        ("/icon.svg", "<svg"),
    ] {
        let (status, body) = page.get(path);
        assert!(status == 200 && String::from_utf8_lossy(&body).contains(holds), "{path}");
    }
    let state = page.state();
    let address = state["image"]["address"].as_str().unwrap();
    let (status, bytes) = page.get(address);
    assert_eq!((status, image::load_from_memory(&bytes).unwrap().width()), (200, 16));

    let host = format!("Host: {}\r\n", page.host);
    let json = "Content-Type: application/json\r\n";
    let body = json!({"image": state["image"]["id"], "class": "cat"}).to_string();
    let refused = |headers: &str| page.post_with("/label", headers, &body).0;
    assert_eq!(refused(&format!("Host: evil.example\r\n{json}")), 421);
    assert_eq!(refused(json), 421);
    assert_eq!(refused(&format!("{host}{json}Origin: http://evil.example\r\n")), 403);
    assert_eq!(refused(&format!("{host}{json}Sec-Fetch-Site: cross-site\r\n")), 403);
    assert_eq!(refused(&format!("{host}Content-Type: text/plain\r\n")), 415);
    let large = "x".repeat(1 << 20);
    assert_eq!(page.post_with("/label", &format!("{host}{json}"), &large).0, 413);
    assert_eq!(page.post_with("/label", &format!("{host}{json}"), "[1]").0, 400);
    assert_eq!(page.post_with("/label", &format!("{host}{json}"), r#"{"image":"7-0","class":"cat"}"#).0, 400);
    for path in [
        "/../secret.png",
        "/image/../secret.png",
        "/image/..%2f..%2fsecret.png",
        "/image/0",
        "/image/",
        "/secret.png",
        "/labels.csv",
    ] {
        assert_eq!(page.get(path).0, 404, "{path}");
    }
    assert_eq!(page.send(b"nonsense\r\n\r\n").0, 400);
    assert_eq!(page.send(format!("PUT / HTTP/1.1\r\n{host}\r\n").as_bytes()).0, 405);
    // A client that never ends its request keeps nobody else waiting.
    let _slow: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&page.host).unwrap()).collect();
    assert_eq!(page.state()["labelled"].as_u64(), Some(0), "nothing of all that was taken for a label");
    // An image that cannot be read is told, and can be skipped.
    let state = page.post("/forward", &json!({}));
    let state = page.post("/forward", &json!({"image": state["image"]["id"]}));
    let (status, why) = page.get(state["image"]["address"].as_str().unwrap());
    assert!(
        status == 404 && String::from_utf8_lossy(&why).contains("2.png"),
        "{}",
        String::from_utf8_lossy(&why)
    );
    assert_eq!(read(&folder.path("labels.csv")), "path,label\n0.png,\n1.png,\n2.png,\n");
}

#[test]
fn what_is_labelled_or_repeated_is_not_chosen() {
    let folder = Folder::empty();
    for number in 0..12 {
        draw(&folder.path(&format!("my photos/{number:02}.png")), number % 2 == 1, number);
    }
    draw(&folder.path("my photos/cat/a.png"), false, 20);
    for copy in ["x", "y", "z"] {
        std::fs::copy(folder.path("my photos/00.png"), folder.path(&format!("my photos/{copy}.png")))
            .unwrap();
    }
    std::fs::copy(folder.path("my photos/cat/a.png"), folder.path("my photos/b.png")).unwrap();
    let found = select(&folder, &["-n16", "--json"]);
    assert!(found.err.contains("only 12 images were chosen"), "{}", found.err);
    assert_eq!(found.json(&["number"])["number"].as_u64(), Some(12));
    let table = read(&folder.path("smalti-select/labels.csv"));
    assert_eq!(table.lines().nth(1), Some("cat/a.png,cat"), "{table}");
    assert!(!table.contains("b.png"), "{table}");
    assert_eq!(["00", "x", "y", "z"].iter().filter(|name| table.contains(&format!("{name}.png"))).count(), 1);

    // The same again, from embeddings that are kept and without them.
    select(&folder, &["-n16", "--resume"]).ok();
    assert_eq!(read(&folder.path("smalti-select/labels.csv")), table);
    select(&folder, &["-n16", "--out=other", "-t1"]).ok();
    assert_eq!(read(&folder.path("other/labels.csv")), table);

    select(&folder, &["-n3"]).fails(2, &["--overwrite"]);
    select(&folder, &["-n3", "--overwrite"]).ok();
    std::fs::write(folder.path("smalti-select/labels.csv"), "path,label\n01.png,dog\n").unwrap();
    select(&folder, &["-n3", "--overwrite"]).fails(2, &["labels.csv", "given since", "--out"]);
    let own = ["-n3", "--overwrite", "--labels=smalti-select/labels.csv"];
    select(&folder, &own).fails(2, &["--labels", "--overwrite would remove"]);
    assert_eq!(read(&folder.path("smalti-select/labels.csv")), "path,label\n01.png,dog\n");
    select(&folder, &["-n2", "--out=third", "--labels=smalti-select/labels.csv"]).ok();
    let third = read(&folder.path("third/labels.csv"));
    assert!(third.starts_with("path,label\n01.png,dog\n") && third.lines().count() == 4, "{third}");
}

#[test]
fn what_cannot_be_chosen_or_labelled_is_refused() {
    let folder = Folder::empty();
    (0..4).for_each(|i| draw(&folder.path(&format!("my photos/{i}.png")), i % 2 == 1, i));
    draw(&folder.path("classes/cat/1.png"), true, 1);
    select(&folder, &[]).fails(2, &["--number is missing"]);
    select(&folder, &["-n0"]).fails(2, &["number is 0", "1 to 4"]);
    select(&folder, &["-n5"]).fails(2, &["number is 5", "1 to 4"]);
    folder.run(&["select", "classes", "-n1"]).fails(5, &["every image has a label", "--labels none"]);
    select(&folder, &["-n2", "--labels=none.csv"]).fails(6, &["none.csv"]);
    select(&folder, &["-n2", "--init=nowhere"]).fails(6, &["nowhere"]);
    select(&folder, &["-n2", "--init=a", "--teacher=b"]).fails(2, &["--init", "--teacher"]);
    select(&folder, &["-n2", "--copy=my photos/sorted"]).fails(2, &["lies in DIR"]);
    select(&folder, &["-n2", "--crops=2"]).fails(2, &["crops"]);
    select(&folder, &["-n2", "--resume"]).fails(2, &["smalti-select", "leave --resume out"]);
    folder.run(&["select", "nowhere", "-n2"]).fails(6, &["nowhere"]);
    folder.run(&["label", "nowhere"]).fails(6, &["nowhere"]);
    folder.run(&["label", "my photos/0.png"]).fails(5, &["a file", "expected a folder"]);
    assert!(!folder.path("smalti-select").exists() && !folder.path("labels.csv").exists());
    folder.run(&["label", "my photos", "--labels=my photos/0.png"]).fails(5, &["0.png"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("--port={}", taken.local_addr().unwrap().port());
    folder.run(&["label", "my photos", &port]).fails(2, &["--port"]);
    folder.tiny("pretrain", &["--data=my photos", "--dec-dim=8", "--batch-size=2", "--out=pre"]).ok();
    folder.run(&["label", "my photos", "--init=pre"]).fails(5, &["expected a classifier"]);
}
