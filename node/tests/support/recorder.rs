use quorate::{
    NodeId,
    transport::{
        Link, Links, Network, NetworkContext, NetworkError,
        network::{Introduction, LocalFuture},
    },
};
use quorate_raft::{Body, Message, Outgoing};
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A network that records the messages of its node, and on request loses some or panics.
pub struct Recorder {
    inner: Box<dyn Network>,
    record: Record,
}

/// The messages that a [`Recorder`] has seen. Clones share them.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    sent: Vec<Outgoing>,
    panic_at: Option<fn(&Body) -> bool>,
    lost: Option<fn(&Body) -> bool>,
}

impl Record {
    /// All messages sent until now.
    pub fn sent(&self) -> Vec<Outgoing> {
        self.lock().sent.clone()
    }

    /// Makes the link panic when it is to send such a message.
    pub fn panic_at(&self, such: fn(&Body) -> bool) {
        self.lock().panic_at = Some(such);
    }

    /// Loses such messages from now on, recorded all the same. `None` loses no more.
    pub fn lose(&self, such: Option<fn(&Body) -> bool>) {
        self.lock().lost = such;
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    pub fn around(network: impl Network, record: &Record) -> Self {
        Self { inner: Box::new(network), record: record.clone() }
    }
}

impl Network for Recorder {
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        Box::pin(async move {
            let inner = self.inner.start(context).await?;
            Ok(Box::new(RecordedLinks { inner, record: self.record }) as Box<dyn Links>)
        })
    }
}

struct RecordedLinks {
    inner: Box<dyn Links>,
    record: Record,
}

impl Links for RecordedLinks {
    fn introduce(&self, introduction: Introduction) {
        self.inner.introduce(introduction);
    }

    fn link(&self, peer: NodeId, address: &str) -> Rc<dyn Link> {
        Rc::new(RecordedLink { peer, inner: self.inner.link(peer, address), record: self.record.clone() })
    }

    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link> {
        Rc::new(RecordedLink { peer, inner: self.inner.reply_link(peer), record: self.record.clone() })
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.inner.local_address()
    }

    fn close(&self) -> LocalFuture<()> {
        // The farewell may take time: a node that failed must be silent meanwhile.
        let closing = self.inner.close();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(900)).await;
            closing.await;
        })
    }
}

struct RecordedLink {
    peer: NodeId,
    inner: Rc<dyn Link>,
    record: Record,
}

impl Link for RecordedLink {
    fn send(&self, message: Message) {
        let fatal = self.record.lock().panic_at.is_some_and(|such| such(&message.body));
        assert!(!fatal, "told to panic at {message:?}");
        self.record.lock().sent.push(Outgoing { to: self.peer, message: message.clone() });
        if self.record.lock().lost.is_none_or(|such| !such(&message.body)) {
            self.inner.send(message);
        }
    }

    fn is_running(&self) -> bool {
        self.inner.is_running()
    }
}
