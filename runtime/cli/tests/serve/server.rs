//! A server of its own for a test, and a client that sends what it likes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

pub fn model() -> PathBuf {
    fixture("colours_u8.onnx")
}

pub fn red() -> Vec<u8> {
    std::fs::read(fixture("red.png")).unwrap()
}

/// A plain PNG of about that colour, with a square of another one in a corner.
pub fn paint(colour: [u8; 3], nudge: u8, fault: Option<[u8; 3]>) -> Vec<u8> {
    let image = image::RgbImage::from_fn(24, 24, |x, y| match fault {
        Some(fault) if x >= 12 && y >= 12 => image::Rgb(fault),
        _ => image::Rgb(colour.map(|value| value.saturating_add(nudge + (x + 2 * y) as u8 % 5))),
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// What the program prints with `--json`.
pub fn json(args: &[&dyn AsRef<OsStr>]) -> Value {
    let output = command(&[args, &[&"--json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn command(args: &[&dyn AsRef<OsStr>]) -> Command {
    let program = std::env::var_os("SMALTI_RUN").unwrap_or_else(|| env!("CARGO_BIN_EXE_smalti-run").into());
    let mut command = Command::new(program);
    command.args(args.iter().map(|arg| arg.as_ref())).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    command
}

/// A server on a free port; killed when this is dropped.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(args: &[&dyn AsRef<OsStr>]) -> Server {
        Server::of(&model(), args)
    }

    pub fn of(model: &Path, args: &[&dyn AsRef<OsStr>]) -> Server {
        let first: [&dyn AsRef<OsStr>; 5] = [&"serve", &model, &"--listen", &"127.0.0.1:0", &"--json"];
        let mut child = command(&[&first[..], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(said["schema_version"], 1);
        let place = said["listening"].as_str().unwrap();
        let address = place.strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
        Server { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own, and reads until the server closes it or has answered.
    pub fn send(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // It may be closed before all is sent.
        let _ = stream.write_all(bytes);
        read(&mut stream)
    }

    /// A request with usual headers and these.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.send(&request(&self.address.to_string(), method, path, headers, body)).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], &[])
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[], body)
    }

    /// The most probable label.
    pub fn label(&self, image: &[u8]) -> String {
        let answer = self.post("/classify", image).json();
        answer["results"][0]["predictions"][0]["label"].as_str().unwrap().to_owned()
    }

    /// Whether it answers an image rightly.
    pub fn is_well(&self) -> bool {
        self.label(&red()) == "red"
    }

    /// A number among the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn request(host: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut lines = vec![format!("{method} {path} HTTP/1.1")];
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        lines.push(format!("Host: {host}"));
    }
    if !body.is_empty() {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    lines.extend(headers.iter().map(|header| header.to_string()));
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

/// What a server answers.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("Content-Type"), Some("application/json"));
        let value: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(value["schema_version"], 1);
        value
    }
}

/// One answer; none if the connection ends before it is whole.
pub fn read(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let code = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = Answer { code, head, body: bytes.split_off(end + 4) };
            let length: usize = answer.header("Content-Length").map_or(0, |length| length.parse().unwrap());
            let missing = length.saturating_sub(answer.body.len());
            let start = answer.body.len();
            answer.body.resize(start + missing, 0);
            return stream.read_exact(&mut answer.body[start..]).is_ok().then_some(answer);
        }
        match stream.read(&mut part) {
            Ok(0) => return None,
            Ok(count) => bytes.extend(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                panic!("neither an answer nor an end for a minute")
            }
            Err(_) => return None,
        }
    }
}
