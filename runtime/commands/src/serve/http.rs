//! Connections and requests, on one thread.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use smalti_runtime::Model;
use smalti_runtime::watch::WatchHandle;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::access::Access;
use super::clock::Clock;
use super::metrics::{self, Dropped, Metrics};
use super::page::Page;
use super::pool::Pool;
use super::reply::Reply;
use super::route::{Route, Task};
use crate::out;
use crate::service::Service;
use crate::signals::Stop;

/// How long a signal or a new model waits at most.
const TICK: Duration = Duration::from_millis(50);

/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// What clients may take.
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// Bytes of a body.
    pub(super) body_bytes: usize,
    /// From the head of a request to its answer.
    pub(super) time: Duration,
}

/// A model behind HTTP.
pub(super) struct Server {
    pub(super) access: Access,
    pub(super) pool: Pool,
    pub(super) metrics: Metrics,
    pub(super) page: Page,
    pub(super) limits: Limits,
}

impl Server {
    /// Serves until a signal comes and the requests that have arrived are answered; its exit code.
    ///
    /// # Errors
    /// What the system says to a listener that cannot be waited for.
    pub(super) fn run(
        self: Arc<Server>,
        listener: TcpListener,
        stop: &Stop,
        watch: Option<WatchHandle>,
        service: Service,
    ) -> std::io::Result<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        listener.set_nonblocking(true)?;
        runtime.block_on(self.serve(listener, stop, watch, service))
    }

    async fn serve(
        self: Arc<Server>,
        listener: TcpListener,
        stop: &Stop,
        mut watch: Option<WatchHandle>,
        mut service: Service,
    ) -> std::io::Result<u8> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let (stopping, _) = watch::channel(());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let code = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &slots, &stopping),
                    Err(error) => {
                        // As many files open as allowed, mostly; some will be closed.
                        log::warn!("cannot accept a connection: {error}");
                        sleep(TICK).await;
                    }
                },
                _ = tick.tick() => {
                    if let Some(code) = stop.code() {
                        break code;
                    }
                    if let Some(watch) = &mut watch {
                        self.look_for_a_model(watch);
                    }
                    service.alive(|| format!("{} connections", self.open_connections(&slots)));
                }
            }
        };
        drop(listener);
        stopping.send_replace(());
        // The last connection gives back the last slot.
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        let _ = timeout(2 * self.limits.time, slots.acquire_many(all)).await;
        Ok(code)
    }

    fn open_connections(&self, slots: &Semaphore) -> usize {
        self.limits.connections - slots.available_permits()
    }

    /// Goes on with a new model, if there is one.
    fn look_for_a_model(&self, watch: &mut WatchHandle) {
        let path = watch.path().display().to_string();
        match watch.news() {
            None => {}
            Some(Ok(session)) => {
                self.pool.replace(session.model().clone());
                out::note(format!("{path} was replaced; from now on the new model answers"));
            }
            Some(Err(error)) => {
                out::note(format!("warning: {path} was replaced, but the old model runs on: {error}"));
            }
        }
    }

    /// Serves a connection if there is a slot for it.
    fn admit(self: &Arc<Server>, stream: TcpStream, slots: &Arc<Semaphore>, stopping: &watch::Sender<()>) {
        match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => {
                let connection =
                    Arc::clone(self).connection(stream, slot, Arc::clone(slots), stopping.subscribe());
                tokio::spawn(connection);
            }
            Err(_) => {
                self.metrics.dropped(Dropped::Full);
                // As far as it goes without waiting.
                let refusal: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.try_write(refusal);
            }
        }
    }

    /// Answers the requests of a connection until it ends or its time is over.
    async fn connection(
        self: Arc<Server>,
        stream: TcpStream,
        slot: OwnedSemaphorePermit,
        slots: Arc<Semaphore>,
        mut stopping: watch::Receiver<()>,
    ) {
        // Answers are written whole.
        let _ = stream.set_nodelay(true);
        let clock = Clock::start(self.limits.time);
        let respond = service_fn(|request| self.respond(request, &clock, &slots));
        let mut builder = http1::Builder::new();
        let connection = builder.max_buf_size(MAX_HEAD).serve_connection(TokioIo::new(stream), respond);
        let mut connection = pin!(connection);
        let mut over = pin!(clock.over());
        let mut ending = false;
        loop {
            tokio::select! {
                done = connection.as_mut() => {
                    if done.is_err_and(|error| error.is_parse()) {
                        self.metrics.dropped(Dropped::Malformed);
                    }
                    break;
                }
                () = over.as_mut() => {
                    self.metrics.dropped(Dropped::Slow);
                    break;
                }
                _ = stopping.changed(), if !ending => {
                    if clock.requests() == 0 {
                        break;
                    }
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        drop(slot);
    }

    /// Answers a request.
    async fn respond(
        &self,
        request: Request<Incoming>,
        clock: &Clock,
        slots: &Semaphore,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (start, due) = (Instant::now(), clock.request());
        let (head, body) = request.into_parts();
        let route = Route::of(head.uri.path());
        let reply = match self.check(&head, route) {
            Ok((_, Some(task))) => self.work(task, body, due).await,
            Ok((route, None)) => Ok(self.look_up(&head, route, slots)),
            // What is not read has to end the connection.
            Err(reply) if body.is_end_stream() => Err(reply),
            Err(reply) => Err(reply.with(CONNECTION, HeaderValue::from_static("close"))),
        };
        let reply = reply.unwrap_or_else(|refused| refused);
        let (path, code) = (route.map_or("other", Route::path), reply.status.as_u16());
        log::info!("{} {path} {code} {:.1} ms", head.method, start.elapsed().as_secs_f64() * 1e3);
        self.metrics.answered(path, code, start.elapsed());
        Ok(reply.into_response(&self.page.policy))
    }

    /// Whether a request may be answered, told by its head, and what it asks of a session, if anything.
    fn check(&self, head: &Parts, route: Option<Route>) -> Result<(Route, Option<Task>), Reply> {
        self.access.check_source(&head.uri, &head.headers)?;
        let route = route.ok_or_else(|| Reply::error(StatusCode::NOT_FOUND, "nothing is at this path"))?;
        if !route.takes(&head.method) {
            let problem = format!("{} takes {}", route.path(), route.methods());
            let reply = Reply::error(StatusCode::METHOD_NOT_ALLOWED, &problem);
            return Err(reply.with(ALLOW, HeaderValue::from_static(route.methods())));
        }
        if !route.is_open() {
            self.access.check_token(&head.headers)?;
        }
        if let Some(problem) = self.pool.learned().lacks(route) {
            return Err(Reply::error(StatusCode::NOT_FOUND, problem));
        }
        Ok((route, Task::of(route, &head.method, head.uri.query())?))
    }

    /// What needs no session.
    fn look_up(&self, head: &Parts, route: Route, slots: &Semaphore) -> Reply {
        match route {
            Route::Metrics => {
                let open = self.open_connections(slots);
                Reply::new(
                    metrics::CONTENT_TYPE,
                    self.metrics.text(&self.pool.model(), self.pool.swaps(), open),
                )
            }
            Route::Health => {
                let known = self.access.knows_token(&head.headers);
                let model = known.then(|| describe(&self.pool.model()));
                let offered = Route::all().filter(|route| self.pool.learned().lacks(*route).is_none());
                let paths = known.then(|| offered.map(Route::path).collect::<Vec<_>>());
                Reply::json(StatusCode::OK, json!({ "status": "ok", "model": model, "paths": paths }))
            }
            Route::Learn => {
                let lessons = self.pool.learned().bank.as_ref();
                Reply::json(StatusCode::OK, lessons.map_or(Value::Null, |lessons| lessons.as_json(json!({}))))
            }
            _ => Reply::new("text/html; charset=utf-8", self.page.html.clone()),
        }
    }

    /// Reads a body and has the task done.
    async fn work(&self, task: Task, body: Incoming, due: tokio::time::Instant) -> Result<Reply, Reply> {
        let refuse = |status, problem: &str| Reply::error(status, problem);
        let most = self.limits.body_bytes;
        let too_large = || {
            let problem = format!("more than {most} bytes: expected a smaller image (--max-body-bytes)");
            refuse(StatusCode::PAYLOAD_TOO_LARGE, &problem)
        };
        // Before the client sends it all.
        if body.size_hint().lower() > most as u64 {
            return Err(too_large().with(CONNECTION, HeaderValue::from_static("close")));
        }
        let body = match timeout_at(due, Limited::new(body, most).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(_)) => return Err(refuse(StatusCode::BAD_REQUEST, "the body ended early")),
            Err(_) => {
                let problem = "the body came too slowly (--timeout)";
                let reply = refuse(StatusCode::REQUEST_TIMEOUT, problem);
                return Err(reply.with(CONNECTION, HeaderValue::from_static("close")));
            }
        };
        match timeout_at(due, self.pool.submit(task, body)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "no session is left")),
            Err(_) => {
                let problem = "too busy to answer in time (--sessions, --timeout)";
                let reply = refuse(StatusCode::SERVICE_UNAVAILABLE, problem);
                Err(reply.with(RETRY_AFTER, HeaderValue::from_static("1")))
            }
        }
    }
}

/// What a page shows of a model.
fn describe(model: &Model) -> Value {
    let ([width, height], record) = (model.input().size(), model.record());
    json!({
        "description": record.map(|record| &record.description),
        "version": record.map(|record| &record.version),
        "weights_sha256": record.map(|record| &record.weights_sha256),
        "width": width,
        "height": height,
        "labels": model.labels(),
        "embedding": model.embedding_len(),
    })
}
