use super::{CLUSTER, soon};
use quorate::{
    NodeId, Term,
    transport::{
        Link, Links, Network, NetworkContext,
        network::{Event, Inbox, Introduction, Unobserved},
    },
};
use quorate_raft::{Append, AppendOutcome, Body, Index, Message};
use quorate_transport_testing::FaultNetwork;
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A peer of one node under test: it sends the messages that a test scripts, and receives all that
/// are sent to it.
pub struct Puppet {
    link: Rc<dyn Link>,
    others: Vec<Rc<dyn Link>>,
    links: Box<dyn Links>,
    heard: mpsc::UnboundedReceiver<Message>,
}

impl Puppet {
    /// Takes the place of member `id` towards `subject`.
    pub async fn start(network: &FaultNetwork, id: NodeId, subject: NodeId) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let inbox = Inbox::new(move |event| {
            if let Event::Delivered(delivered) = event {
                let _ = sender.send(delivered.message);
            }
        });
        let context = NetworkContext {
            cluster: CLUSTER.into(),
            node: id,
            introduction: Introduction::default(),
            election_timeout: std::time::Duration::from_millis(300),
            inbox,
            observer: Arc::new(Unobserved),
        };
        let links = Box::new(network.endpoint(id)).start(context).await.expect("a network");
        Self { link: links.link(subject, ""), others: Vec::new(), links, heard }
    }

    /// Links the puppet to another node, too.
    pub fn links_to(&mut self, other: NodeId) {
        self.others.push(self.links.link(other, ""));
    }

    /// Sends the same message to all nodes that it is linked to.
    pub fn say_to_all(&self, term: Term, body: &Body) {
        for link in self.others.iter().chain([&self.link]) {
            link.send(Message { term, body: body.clone() });
        }
    }

    /// Sends a message. An append from the first entry on is sent twice, the second time in a later
    /// epoch: a new node answers the first one only with the fact that it is new.
    pub fn say(&self, term: Term, body: Body) {
        let again = match &body {
            Body::Append(append) if append.previous.index == Index(0) && append.batch.is_some() => {
                Some(Body::Append(Append { epoch: append.epoch + 1, ..append.clone() }))
            }
            _ => None,
        };
        for body in [Some(body), again].into_iter().flatten() {
            self.link.send(Message { term, body });
        }
    }

    /// The next message that `pick` selects; earlier ones are dropped.
    pub async fn hear<T>(&mut self, what: &str, mut pick: impl FnMut(&Message) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let message = self.heard.recv().await.expect("an open network");
                if let Some(picked) = pick(&message) {
                    return picked;
                }
            }
        })
        .await
    }

    /// All messages that arrive in the next second of simulated time.
    pub async fn hear_for_a_second(&mut self) -> Vec<Message> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

/// The last entry that an acknowledgement names.
pub fn matched(message: &Message) -> Option<Index> {
    match message.body {
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { matched } => Some(matched),
            _ => None,
        },
        _ => None,
    }
}
