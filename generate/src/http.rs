use std::{future::Future, time::Duration};

use anyhow::{Context, bail, ensure};
use reqwest::{Client, Response, StatusCode, header};
use serde::Deserialize;

use crate::{
    Spec, Summary,
    drive::{Answer, SENDS_MAX, Target, drive},
    hit::Sending,
};

/// Sends the traffic of `spec` to the collector at `url` with the sites' write token, until it ends or `shutdown`
/// resolves.
///
/// An error if nothing answers there at the start; later on a collector that goes away is waited for, and what it did
/// not clearly answer is sent again with the same ids.
pub async fn over_http(
    spec: &Spec,
    url: &str,
    token: &str,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<Summary> {
    ensure!(url.starts_with("http://"), "{url} is no http:// address (a proxy for https is not supported here)");
    let url = url.trim_end_matches('/');
    let client = Client::builder()
        .user_agent(concat!("weir-generate/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(SENDS_MAX)
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .build()?;
    let health = client.get(format!("{url}/healthz")).send().await;
    let health =
        health.with_context(|| format!("nothing answers at {url} (is `weir serve` or `weir ingest` running?)"))?;
    if !health.status().is_success() {
        bail!("{url}/healthz answered {} (is this a collector of weir?)", health.status());
    }
    let collector = Collector { client, url: format!("{url}/v1/events"), authorization: format!("Bearer {token}") };
    Ok(drive(spec, collector, shutdown).await)
}

struct Collector {
    client: Client,
    url: String,
    authorization: String,
}

impl Target for Collector {
    async fn send(&self, events: &[Sending]) -> Answer {
        let body = serde_json::to_vec(events).expect("events are JSON");
        let request = self.client.post(&self.url).header(header::AUTHORIZATION, &self.authorization);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        match request.send().await {
            Ok(response) => read(response, events.len()).await,
            // A connection that could not be made has carried nothing.
            Err(error) => Answer::Again { unclear: !error.is_connect(), retry_after: None, why: error.to_string() },
        }
    }
}

/// Reads an answer of `POST /v1/events` to `sent` events.
async fn read(response: Response, sent: usize) -> Answer {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        Events { accepted: usize, rejected: Vec<Rejected> },
        Failure { error: String },
    }
    #[derive(Deserialize)]
    struct Rejected {
        index: usize,
        reason: String,
    }
    let status = response.status();
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    let unclear = |why: String| Answer::Again { unclear: true, retry_after, why };
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(error) => return unclear(error.to_string()),
    };
    match serde_json::from_slice(&body) {
        Ok(Body::Events { accepted, rejected }) if accepted + rejected.len() == sent => {
            let mut rejected: Vec<_> = rejected.into_iter().map(|event| (event.index, event.reason)).collect();
            rejected.sort();
            Answer::Taken { rejected, retry_after }
        }
        Ok(Body::Failure { error }) => match status {
            StatusCode::TOO_MANY_REQUESTS => Answer::Again { unclear: false, retry_after, why: error },
            StatusCode::REQUEST_TIMEOUT => Answer::Again { unclear: false, retry_after, why: error },
            status if status.is_client_error() => Answer::Refused { reason: error },
            _ => unclear(error),
        },
        Ok(Body::Events { .. }) | Err(_) => unclear(format!("{status} with a body that answers other events")),
    }
}
