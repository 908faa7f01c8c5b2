//! What a server has done, in Prometheus' text format (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use smalti_runtime::{Model, cpu};

use super::lock;

/// The format, as a header says it.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the histogram's buckets in seconds.
const BOUNDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why a connection ended without an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dropped {
    /// What came is no HTTP.
    Malformed,
    /// Its time was over.
    Slow,
    /// There were as many as allowed.
    Full,
}

impl Dropped {
    const ALL: [(Dropped, &'static str); 3] =
        [(Dropped::Malformed, "malformed"), (Dropped::Slow, "slow"), (Dropped::Full, "full")];
}

/// Counts since the start.
#[derive(Default)]
pub(super) struct Metrics {
    routes: Mutex<BTreeMap<&'static str, Requests>>,
    dropped: [AtomicUsize; Dropped::ALL.len()],
}

/// Of one route.
#[derive(Default)]
struct Requests {
    codes: BTreeMap<u16, u64>,
    /// Answers up to each bound, and beyond the last.
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Metrics {
    /// Counts an answer; `route` is the path, or `other`.
    pub(super) fn answered(&self, route: &'static str, code: u16, time: Duration) {
        let mut routes = lock(&self.routes);
        let (requests, seconds) = (routes.entry(route).or_default(), time.as_secs_f64());
        *requests.codes.entry(code).or_default() += 1;
        requests.buckets[BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())] += 1;
        requests.seconds += seconds;
    }

    /// Counts a connection without an answer.
    pub(super) fn dropped(&self, why: Dropped) {
        self.dropped[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The page that Prometheus reads.
    pub(super) fn text(&self, model: &Model, swaps: usize, connections: usize) -> String {
        let mut page = Page::default();
        let routes = lock(&self.routes);
        page.head("smalti_requests_total", "counter", "Requests by path and status code.");
        for (route, requests) in routes.iter() {
            for (code, count) in &requests.codes {
                page.line("smalti_requests_total", &[("path", route), ("code", &code.to_string())], count);
            }
        }
        let name = "smalti_request_duration_seconds";
        page.head(name, "histogram", "Time from the head of a request to its answer.");
        for (route, requests) in routes.iter() {
            let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".into()]);
            let mut sum = 0;
            for (bound, count) in bounds.zip(requests.buckets) {
                sum += count;
                page.line(&format!("{name}_bucket"), &[("path", route), ("le", &bound)], sum);
            }
            page.line(&format!("{name}_sum"), &[("path", route)], requests.seconds);
            page.line(&format!("{name}_count"), &[("path", route)], sum);
        }
        drop(routes);
        page.head("smalti_dropped_connections_total", "counter", "Connections that ended without an answer.");
        for (why, name) in Dropped::ALL {
            let count = self.dropped[why as usize].load(Ordering::Relaxed);
            page.line("smalti_dropped_connections_total", &[("reason", name)], count);
        }
        page.head("smalti_connections", "gauge", "Connections that are open.");
        page.line("smalti_connections", &[], connections);
        page.head("smalti_model_info", "gauge", "The model that answers.");
        let of_record =
            model.record().map(|record| (record.version.as_str(), record.weights_sha256.as_str()));
        let (version, digest) = of_record.unwrap_or_default();
        page.line("smalti_model_info", &[("version", version), ("weights_sha256", digest)], 1);
        page.head("smalti_model_swaps_total", "counter", "Models that took the place of the one before.");
        page.line("smalti_model_swaps_total", &[], swaps);
        if let Some(mb) = cpu::memory_mb() {
            page.head("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
            page.line("process_resident_memory_bytes", &[], mb * 1024.0 * 1024.0);
        }
        page.0
    }
}

/// A page of samples.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escape(value));
        let labels: Vec<_> = labels.iter().map(label).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A label's value; those of models come from files.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn requests_are_counted_by_path_code_and_time() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models");
        let model = Model::open(models.join("colours_u8.onnx")).unwrap();
        let metrics = Metrics::default();
        for (ms, code) in [(1, 200), (2, 200), (600, 422), (60_000, 503)] {
            metrics.answered("/classify", code, Duration::from_millis(ms));
        }
        metrics.dropped(Dropped::Slow);
        let text = metrics.text(&model, 2, 7);
        for line in [
            "smalti_requests_total{path=\"/classify\",code=\"200\"} 2",
            "smalti_request_duration_seconds_bucket{path=\"/classify\",le=\"0.001\"} 1",
            "smalti_request_duration_seconds_bucket{path=\"/classify\",le=\"0.5\"} 2",
            "smalti_request_duration_seconds_bucket{path=\"/classify\",le=\"10\"} 3",
            "smalti_request_duration_seconds_bucket{path=\"/classify\",le=\"+Inf\"} 4",
            "smalti_request_duration_seconds_count{path=\"/classify\"} 4",
            "smalti_dropped_connections_total{reason=\"slow\"} 1",
            "smalti_dropped_connections_total{reason=\"malformed\"} 0",
            "smalti_connections 7",
            "smalti_model_swaps_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let digest = &model.record().unwrap().weights_sha256;
        assert!(text.contains(&format!("weights_sha256=\"{digest}\"}} 1")), "{text}");
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
