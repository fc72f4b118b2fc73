//! A hyper server without a framework.
//!
//! ```sh
//! cargo run --example plain_hyper
//! ```
//!
//! It prints an `export` line with a key. Paste that, then:
//!
//! ```sh
//! curl -i localhost:3000/health                          # 200
//! curl -i localhost:3000/time                            # 401
//! curl -i localhost:3000/time -H "X-API-Key: $KEY"       # 200
//! curl -i localhost:3000/date -H "X-API-Key: $KEY"       # 403
//! curl -i --http2-prior-knowledge localhost:3000/time -H "X-API-Key: $KEY"  # 200
//! ```

use std::{convert::Infallible, error::Error, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    Clock, Connection, SecurityContext, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    guard::{authenticated, public, require},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tower::{ServiceExt, service_fn};

/// How long a client may take to send the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let principal = SecurityContext::of(request.extensions()).and_then(SecurityContext::principal);
    let name = principal.map_or_else(|| "nobody".to_owned(), |principal| principal.subject().to_owned());
    Ok(Response::new(Full::from(format!("{} for {name}\n", request.uri().path()))))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, now) = (Arc::new(MemoryKeyStore::new()), SystemClock::new().now());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let (key, _) = keys.issuer().issue(&store, NewApiKey::for_subject("clock"), now).await?;
    println!("export KEY={}", key.expose());

    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(keys)
        .route("GET /health", public())
        .route("GET /time", require(authenticated()))
        .build()?;
    let app = stack.protect(service_fn(answer));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, for example: the next one would fail at once as well.
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        // Who is calling: hyper does not tell, so it goes into each request.
        let asked = Arc::new(Notify::new());
        let asking = Arc::clone(&asked);
        let app = app.clone().map_request(move |mut request: Request<Incoming>| {
            asking.notify_one();
            request.extensions_mut().insert(Connection::plain(peer));
            request
        });
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            // Who sends no request keeps no connection: not the next one, and not the first, before which hyper waits for ever to
            // see which version of HTTP it is.
            server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let silent = async {
                if timeout(PATIENCE, asked.notified()).await.is_ok() {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)) => {
                    if let Err(error) = served {
                        eprintln!("{peer}: {error}");
                    }
                }
                () = silent => eprintln!("{peer}: no request"),
            }
        });
    }
}
