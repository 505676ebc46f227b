use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{Desk, Snapshot, control};

/// What the console asks of the process that it is part of. Called for each request.
pub trait Health: Send + Sync + 'static {
    /// The state of everything; an error is one sentence for a person.
    fn snapshot(&self) -> Result<Snapshot, String>;

    /// Prometheus text of this process's metrics.
    fn metrics(&self) -> String;

    /// `None` when all parts of this process work, else what does not, one sentence.
    fn unready(&self) -> Option<String>;
}

/// Answers on `listener` until `shutdown`: `/healthz`, `/readyz`, `/metrics`, `/status.json`, and the operators' API of
/// `desk`.
pub async fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    desk: Arc<Desk>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status.json", get(status))
        .with_state(health)
        .merge(control::router(desk));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn readyz(State(health): State<Arc<dyn Health>>) -> Response {
    match health.unready() {
        None => "ok\n".into_response(),
        Some(reason) => unavailable(format!("{reason}\n")),
    }
}

async fn metrics(State(health): State<Arc<dyn Health>>) -> Response {
    let text = tokio::task::spawn_blocking(move || {
        let mut text = health.metrics();
        if let Ok(snapshot) = health.snapshot() {
            run_metrics(&snapshot, &mut text);
        }
        text
    });
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => unavailable("the log could not be looked at\n".to_owned()),
    }
}

async fn status(State(health): State<Arc<dyn Health>>) -> Response {
    match tokio::task::spawn_blocking(move || health.snapshot()).await {
        Ok(Ok(snapshot)) => ([(header::CACHE_CONTROL, "no-store")], Json(snapshot)).into_response(),
        Ok(Err(reason)) => unavailable(format!("{reason}\n")),
        Err(_) => unavailable("the log could not be looked at\n".to_owned()),
    }
}

fn unavailable(reason: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], reason).into_response()
}

/// The runs are processes of their own; what they said in the log is shown here as gauges.
fn run_metrics(snapshot: &Snapshot, text: &mut String) {
    use std::fmt::Write;
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&crate::RunStatus) -> Option<f64>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for run in &snapshot.runs {
            if let Some(value) = value(run) {
                let _ = writeln!(text, "{name}{{run=\"{}\"}} {value}", run.run);
            }
        }
    };
    let seconds = |ms: i64| ms as f64 / 1000.0;
    gauge("weir_pipeline_lag_records", "Records of the log that the run has not read.", &|run| {
        Some(run.lag_records as f64)
    });
    gauge("weir_pipeline_lag_seconds", "Log time that the run is behind.", &|run| Some(seconds(run.lag_ms)));
    gauge("weir_pipeline_complete_through_seconds", "All before this Unix time is in the table.", &|run| {
        run.progress.as_ref()?.complete_through_ms.map(seconds)
    });
    gauge("weir_pipeline_watermark_seconds", "Unix time of the run's watermark.", &|run| {
        run.progress.as_ref()?.watermark_ms.map(seconds)
    });
    gauge("weir_pipeline_windows_open", "Windows that have not closed.", &|run| {
        run.progress.as_ref().map(|progress| progress.windows_open as f64)
    });
    gauge("weir_pipeline_waiting_seconds", "How long the run has waited for something that it tries again.", &|run| {
        let waiting = run.progress.as_ref()?.waiting.as_ref();
        Some(waiting.map_or(0.0, |waiting| seconds(snapshot.at_ms - waiting.since_ms)))
    });
    gauge("weir_pipeline_missing_seconds", "Time of which the windows were given up.", &|run| {
        Some(seconds(run.missing.iter().map(|missing| missing.to_ms - missing.from_ms).sum()))
    });
    gauge("weir_pipeline_stopped", "1: the run has stopped and a person is needed.", &|run| {
        run.progress.as_ref().map(|progress| f64::from(u8::from(progress.stopped.is_some())))
    });
}
