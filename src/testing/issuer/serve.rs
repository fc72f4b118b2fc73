use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::TestIssuer;
use crate::{clock::Clock, jwt::Algorithm};

/// How a provider on loopback answers.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Answers {
    /// As it should.
    #[default]
    Good,
    /// With this status and no body.
    Status(u16),
    /// As it should, after so long. Under paused tokio time it takes none.
    Slow(Duration),
    /// With this text, as JSON.
    Text(String),
}

/// A [`TestIssuer`] that publishes metadata and keys on loopback, over plain HTTP, until it is dropped.
#[derive(Debug)]
pub struct IssuerServer {
    issuer: TestIssuer,
    answers: Arc<Mutex<Answers>>,
    task: JoinHandle<()>,
}

impl TestIssuer {
    /// Starts a provider on a free port of loopback. Its name is its address, as discovery demands; whoever asks it has to
    /// say [`dangerous_http_on_loopback`](crate::jwt::keys::LiveKeysBuilder::dangerous_http_on_loopback).
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn serve(
        audience: impl Into<String> + Send,
        algorithms: impl IntoIterator<Item = Algorithm> + Send,
        clock: impl Clock,
    ) -> std::io::Result<IssuerServer> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let name = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
        let issuer = Self::named(name, audience.into(), algorithms, Arc::new(clock));
        let answers = Arc::<Mutex<Answers>>::default();
        let metadata = {
            let (issuer, answers) = (issuer.clone(), Arc::clone(&answers));
            get(async move || {
                let name = issuer.name();
                answer(&answers, format!(r#"{{"issuer":"{name}","jwks_uri":"{name}/jwks.json"}}"#)).await
            })
        };
        let keys = {
            let (issuer, answers) = (issuer.clone(), Arc::clone(&answers));
            get(async move || answer(&answers, issuer.jwks()).await)
        };
        let router = Router::new().route("/.well-known/openid-configuration", metadata).route("/jwks.json", keys);
        let task = tokio::spawn(async move {
            let _ = ::axum::serve(listener, router).await;
        });
        Ok(IssuerServer { issuer, answers, task })
    }
}

async fn answer(answers: &Mutex<Answers>, good: String) -> impl IntoResponse + use<> {
    let how = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, text) = match how {
        Answers::Good => (StatusCode::OK, good),
        Answers::Status(status) => (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), String::new()),
        Answers::Slow(delay) => {
            tokio::time::sleep(delay).await;
            (StatusCode::OK, good)
        }
        Answers::Text(text) => (StatusCode::OK, text),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], text)
}

impl IssuerServer {
    /// The provider.
    #[must_use]
    pub const fn issuer(&self) -> &TestIssuer {
        &self.issuer
    }

    /// Where its JWK Set is.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks.json", self.issuer.name())
    }

    /// Says how it answers from now on.
    pub fn answer(&self, how: Answers) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = how;
    }
}

impl Drop for IssuerServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
