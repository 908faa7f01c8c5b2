//! What systemd is told, where it has started this program and asks for it (`Type=notify`, `WatchdogSec=`).

use std::time::{Duration, Instant};

/// How often there is something to tell where no watchdog asks for it.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
const REPORT: Duration = Duration::from_secs(10);

/// The service that this program is, if it is one.
pub(super) struct Service {
    told: Instant,
    every: Duration,
}

impl Service {
    /// Says that the work begins.
    pub(super) fn ready() -> Service {
        tell::ready();
        // Well before systemd's patience ends.
        let every = tell::patience().map_or(REPORT, |patience| (patience / 4).min(REPORT));
        Service { told: Instant::now(), every }
    }

    /// Says, not too often, that work is being done; `status` in words.
    pub(super) fn alive(&mut self, status: impl FnOnce() -> String) {
        if self.told.elapsed() >= self.every {
            self.told = Instant::now();
            tell::alive(&status());
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        tell::stopping();
    }
}

#[cfg(target_os = "linux")]
mod tell {
    use std::time::Duration;

    use sd_notify::{NotifyState, notify, watchdog_enabled};

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(why) = notify(state) {
            log::warn!("cannot tell the service manager: {why}");
        }
    }

    pub(super) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn alive(status: &str) {
        tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }

    pub(super) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    pub(super) fn patience() -> Option<Duration> {
        watchdog_enabled()
    }
}

#[cfg(not(target_os = "linux"))]
mod tell {
    use std::time::Duration;

    pub(super) fn ready() {}
    pub(super) fn alive(_: &str) {}
    pub(super) fn stopping() {}
    pub(super) fn patience() -> Option<Duration> {
        None
    }
}
