//! What the service manager hears.
#![cfg(target_os = "linux")]

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::*;

#[test]
fn systemd_hears_when_work_begins_goes_on_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("notify");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut buffer = [0; 1000];
        // With a timeout a signal to this process ends the call.
        let length = loop {
            match socket.recv(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                heard => break heard.unwrap(),
            }
        };
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut service = command(&[&"run", &model(), &"raw:4x4:rgb8:-"]);
    let mut child = service.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "200000").spawn().unwrap();
    assert_eq!(hear(), "READY=1\n");
    // Silence while no frame comes: a camera that hangs must not look alive.
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(socket.recv(&mut [0; 1000]).is_err());
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&RED.repeat(16)).unwrap();
    let words = hear();
    assert_eq!(words, "WATCHDOG=1\nSTATUS=1 frames answered, 0 dropped, 0 bad\n");
    drop(pipe);
    let mut words = hear();
    while words.starts_with("WATCHDOG=1") {
        words = hear();
    }
    assert_eq!(words, "STOPPING=1\n");
    assert!(child.wait_with_output().unwrap().status.success());
}
