//! A way to a server on loopback that a test can cut, mend and make long.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub struct Proxy {
    port: u16,
    open: watch::Sender<bool>,
    millis: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, is_open) = watch::channel(true);
        let millis = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&millis);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut is_open, delay) = (is_open.clone(), Arc::clone(&delay));
                if !*is_open.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
                    let both = async {
                        tokio::join!(carry(from_client, to_server, &delay), carry(from_server, to_client, &delay))
                    };
                    tokio::select! {
                        _ = both => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { port, open, millis, task }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection, and takes none.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }

    /// Takes so long for what comes from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.millis.store(u64::try_from(delay.as_millis()).unwrap(), Relaxed);
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, millis: &AtomicU64) {
    let mut buffer = vec![0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(Duration::from_millis(millis.load(Relaxed))).await;
        if to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
