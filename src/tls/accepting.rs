//! Accepting connections that are not ready when they come: each has something to say first, and may be silent, slow or
//! broken without keeping others waiting.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};

use super::network::{Network, makes_room};
use crate::{
    client::Connection,
    error::ConfigError,
    evidence::{PREFIX_LEN, ProxyHeader, ProxyProtocol},
    log,
};

/// The most handshakes at once, unless told otherwise. One more, and the oldest of the network with the most is given up.
const MAX_HANDSHAKES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// How long a handshake may take, unless told otherwise.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many there may be told to be: each that comes while they wait is weighed against all of them.
const MOST: usize = 4_096;
/// How long a handshake may be told to take: shorter refuses everybody, longer lets silent clients keep others out.
const TIMEOUT_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(120);
/// How long to wait after an error that the next `accept` would meet again, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// What a connection goes through before it counts as accepted.
pub(super) trait Handshake: Clone + Send + 'static {
    type Io: Send + 'static;

    /// The error is why it came to nothing. It tells for whom the peer speaks once it knows.
    fn run(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        source: Source,
    ) -> impl Future<Output = io::Result<(Self::Io, Connection)>> + Send;
}

/// Whose a handshake is: the peer's, until a proxy has said for whom it speaks.
#[derive(Clone)]
pub(super) struct Source {
    peer: IpAddr,
    announced: Arc<OnceLock<IpAddr>>,
}

impl Source {
    fn of(peer: SocketAddr) -> Self {
        Self { peer: peer.ip(), announced: Arc::default() }
    }

    /// The first word counts.
    pub(super) fn is(&self, announced: IpAddr) {
        let _ = self.announced.set(announced);
    }

    fn network(&self) -> Network {
        self.announced.get().copied().unwrap_or(self.peer).into()
    }
}

/// A handshake under way, or over.
struct Begun {
    task: AbortHandle,
    source: Source,
}

/// A listener whose handshakes run beside each other and beside `accept`.
pub(super) struct Accepting<H: Handshake> {
    tcp: TcpListener,
    pub(super) handshake: H,
    running: JoinSet<Option<(H::Io, Connection)>>,
    /// In the order in which they began; may hold some that are over.
    begun: VecDeque<Begun>,
    most: NonZeroUsize,
    timeout: Duration,
    failures: HandshakeFailures,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<H: Handshake> Accepting<H> {
    pub(super) fn new(tcp: TcpListener, handshake: H) -> Self {
        Self {
            tcp,
            handshake,
            running: JoinSet::new(),
            begun: VecDeque::new(),
            most: MAX_HANDSHAKES,
            timeout: HANDSHAKE_TIMEOUT,
            failures: HandshakeFailures::default(),
            pause: None,
        }
    }

    pub(super) fn set_bounds(&mut self, most: NonZeroUsize, timeout: Duration) -> Result<(), ConfigError> {
        if most.get() > MOST {
            return Err(ConfigError::new("handshakes at once", most.to_string(), "must be 1 to 4096"));
        }
        if !TIMEOUT_BOUNDS.contains(&timeout) {
            return Err(ConfigError::new("handshake time-out", format!("{timeout:?}"), "must be 100ms to 120s"));
        }
        (self.most, self.timeout) = (most, timeout);
        Ok(())
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    pub(super) fn failures(&self) -> HandshakeFailures {
        self.failures.clone()
    }

    /// Cancel safe: nothing is lost if it is dropped and called again.
    pub(super) async fn accept(&mut self) -> (H::Io, Connection) {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(H::Io, Connection)> {
        loop {
            while let Poll::Ready(Some(done)) = self.running.poll_join_next(cx) {
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
        // TLS and HTTP write whole records and frames: Nagle's algorithm would keep the second one back for the client's delayed
        // acknowledgement of the first. A socket that does not take it is as good, but slower.
        let _ = stream.set_nodelay(true);
        let source = Source::of(peer);
        if self.begun.len() >= self.most.get() {
            self.begun.retain(|handshake| !handshake.task.is_finished());
        }
        // One client that opens many keeps out itself, and not who is slow elsewhere.
        if self.begun.len() >= self.most.get()
            && let Some(index) = makes_room(self.begun.iter().map(|begun| begun.source.network()), source.network())
            && let Some(given_up) = self.begun.remove(index)
        {
            given_up.task.abort();
            failed(given_up.source.peer, "it was given up for others");
        }
        let (handshake, limit, of) = (self.handshake.clone(), self.timeout, source.clone());
        let running = async move {
            match timeout(limit, handshake.run(stream, peer, of)).await {
                Ok(Ok(accepted)) => return Some(accepted),
                Ok(Err(cause)) => failed(peer.ip(), &cause),
                Err(late) => failed(peer.ip(), &late),
            }
            None
        };
        self.begun.push_back(Begun { task: self.running.spawn(running), source });
    }
}

impl<H: Handshake> fmt::Debug for Accepting<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepting")
            .field("address", &self.tcp.local_addr().ok())
            .field("handshakes", &self.running.len())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// Tells why, bounded and in one line: part of it is the peer's word.
fn failed(peer: IpAddr, cause: &(impl fmt::Display + ?Sized)) {
    log::debug(|| log::one_line(&format!("a handshake with {peer} failed: {cause}")));
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Counts the handshakes of a listener that came to nothing: failed, timed out, given up, or from somebody who may not speak
/// the PROXY protocol. Clones share the count.
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

/// What the PROXY protocol says of a connection, if it is spoken here, and whether it tells of the client's TLS.
///
/// Reads the header and not a byte more.
///
/// # Errors
/// If the peer may not speak it, or does not.
pub(super) async fn announced(
    proxies: Option<&ProxyProtocol>,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> io::Result<(Connection, bool)> {
    let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let Some(proxies) = proxies else { return Ok((Connection::plain(peer), false)) };
    if !proxies.contains(peer.ip()) {
        return Err(io::Error::other("it is none of those that may speak the PROXY protocol"));
    }
    let mut prefix = [0; PREFIX_LEN];
    stream.read_exact(&mut prefix).await?;
    let mut block = vec![0; ProxyHeader::block_len(&prefix).map_err(bad)?];
    stream.read_exact(&mut block).await?;
    let header = ProxyHeader::read(&prefix, &block).map_err(bad)?;
    Ok((header.connection(peer), header.tells_tls()))
}
