use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ProtocolVersion, server::TlsStream};

use super::certificate::ServerCertificate;
use crate::{
    client::{Connection, TlsVersion},
    log,
};

/// The most handshakes at once. One more, and the oldest is given up.
const MAX_HANDSHAKES: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an error that the next `accept` would meet again, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// Accepts TLS connections for `axum::serve`.
///
/// TLS 1.3, or 1.2 (RFC 9325 §3.1.1); no early data; ALPN offers `http/1.1`, and `h2` after
/// [`with_http2`](Self::with_http2). Serve with `into_make_service_with_connect_info::<Connection>()`, so that each
/// request knows its peer and TLS version.
///
/// Handshakes run beside each other and beside `accept`: a client that stays silent keeps nobody waiting. Each has 10 s.
/// At most 256 run at once; while more come, the oldest is given up, so that silent clients cannot fill the house. A
/// handshake that fails is dropped and [counted](Self::failed_handshakes). Dropping the listener ends them all.
///
/// # Cancel safety
/// `accept` may be dropped and called again; nothing is lost.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<Accepted>>,
    /// In the order in which they began; may hold some that are over.
    begun: VecDeque<AbortHandle>,
    failures: HandshakeFailures,
    pause: Option<Pin<Box<Sleep>>>,
}

type Accepted = (TlsStream<TcpStream>, Connection);

impl TlsListener {
    /// Binds an address.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound.
    pub async fn bind(address: impl ToSocketAddrs, certificate: ServerCertificate) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, certificate))
    }

    /// Takes over a listener that is bound.
    #[must_use]
    pub fn new(listener: TcpListener, certificate: ServerCertificate) -> Self {
        let mut config = certificate.config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tcp: listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: JoinSet::new(),
            begun: VecDeque::new(),
            failures: HandshakeFailures::default(),
            pause: None,
        }
    }

    /// Offers HTTP/2 as well, and prefers it. Needs axum's feature `http2`; without it such connections fail.
    #[must_use]
    pub fn with_http2(mut self) -> Self {
        let mut config = (**self.acceptor.config()).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        self.acceptor = TlsAcceptor::from(Arc::new(config));
        self
    }

    /// The address that it is bound to; the port is the one that the system chose, if it was bound to port 0.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The count of handshakes that failed, timed out or were given up; it goes on while the listener serves.
    #[must_use]
    pub fn failed_handshakes(&self) -> HandshakeFailures {
        self.failures.clone()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        loop {
            while let Poll::Ready(Some(done)) = self.handshakes.poll_join_next(cx) {
                match done {
                    Ok(Some(accepted)) => return Poll::Ready(accepted),
                    Ok(None) | Err(_) => self.failures.add(),
                }
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.tcp.poll_accept(cx)) {
                Ok((stream, peer)) => self.begin(stream, peer),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    log::error(&format!("cannot accept connections: {error}"));
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.begun.len() >= MAX_HANDSHAKES {
            self.begun.retain(|handshake| !handshake.is_finished());
        }
        if self.begun.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.begun.pop_front()
        {
            oldest.abort();
        }
        let handshake = self.handshakes.spawn(handshake(self.acceptor.clone(), stream, peer));
        self.begun.push_back(handshake);
    }
}

/// Counts the handshakes of a [`TlsListener`] that came to nothing. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct HandshakeFailures(Arc<AtomicU64>);

impl HandshakeFailures {
    /// How many there were so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.ok()?.ok()?;
    let version = match stream.get_ref().1.protocol_version()? {
        ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
        ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
        _ => return None,
    };
    Some((stream, Connection::tls(peer, version)))
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// The address that it is bound to, in the shape of a connection; see [`TlsListener::local_address`].
    fn local_addr(&self) -> io::Result<Connection> {
        self.local_address().map(Connection::plain)
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        *stream.remote_addr()
    }
}

impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("address", &self.tcp.local_addr().ok())
            .field("handshakes", &self.handshakes.len())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
