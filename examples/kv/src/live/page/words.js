// What each element means, in the words of the paper; the section last. Explained by hover, focus and tap.
const MEANS = {
  leader: ['Leader', 'Filled disc. Takes all writes, and sends them to the others. At most one a term.', 'paper §5.1, §5.2'],
  follower: ['Follower', 'Open disc. The ring is its election timer: each heartbeat fills it. When it is empty, the node campaigns.', 'paper §5.2'],
  candidate: ['Candidate', 'Dashed disc. First it asks for pre-votes, which raise no term; with a majority of those, for votes.', 'paper §5.2; thesis §9.6'],
  append: ['Append', 'Squares are appends, small circles their answers, large circles heartbeats. A sample is drawn; the number beside a link counts what is on its way.', 'paper §5.3'],
  gone: ['Compacted', 'Covered by a snapshot, and no longer in the log.', 'paper §7'],
  applied: ['Applied', 'Committed, and executed by the state machine of this node.', 'paper §5.3'],
  commit: ['Committed', 'A majority has it on disk, as far as this node knows. It can never be lost or changed.', 'paper §5.3, §5.4'],
  dur: ['Durable', 'On this node’s disk, not yet known to be committed.', 'paper §5.3'],
  mem: ['Received', 'Not durable yet: on its way to this node’s disk. It counts for no majority yet.', 'thesis §10.2.1'],
  bad: ['Conflict', 'Another term than the leader’s at the same index. It was never committed, and will be removed.', 'paper §5.3, Figure 7'],
  queue: ['Queue', 'From the request to its turn in the leader: what arrived together becomes one batch.', 'thesis §10.2.2'],
  encode: ['Encode', 'The batch is laid out once, as it goes to every disk and wire.', 'thesis §10.2.2'],
  quorum: ['Quorum', 'Until a majority of the voters has the batch on disk. The leader’s disk is one of them, and writes while the network sends.', 'paper §5.3; thesis §10.2.1'],
  voter: ['A voter’s part', 'From the batch’s departure until this voter has it on disk, as the leader learns it. Dashed: the majority did not wait for it.', 'paper §5.3'],
  commitq: ['Commit', 'The leader counts, and raises its commit index.', 'paper §5.3, §5.4.2'],
  apply: ['Apply', 'The state machine executes the command.', 'paper §5.3'],
  reply: ['Reply', 'From the result to the client’s connection.', 'paper §8'],
  facts: ['Figures', 'Entries are counted when they are committed; reads are not among them. A cluster survives the loss of nodes while a majority of its voters, more than half, still answers. Requests wait while there is no leader; a client learns the outcome of each.', 'paper §2, §5.4'],
  line: ['Terms and leaders', 'On top the leader of each term, hatched while a node campaigns and open while there is none. Below, a line for each node. Arrow keys go from event to event.', 'paper §5.1, Figure 5'],
  term: ['Term', 'A number that only rises. Each election begins a new one; a message of an older term is refused.', 'paper §5.1'],
  pace: ['Pace', 'A follower that hears nothing for its election timeout campaigns. Each draws its timeout anew, so that one usually starts alone.', 'paper §5.2, §9.3'],
  ok: ['Healthy', 'There is a leader, and every node answers and follows it, or is about to catch up.', 'paper §5.1'],
  warn: ['Degraded', 'Writes succeed, and something needs attention: until it is mended, the cluster survives fewer failures.', 'paper §2'],
  bad: ['No leader', 'No write and no linearizable read succeeds until a majority of the voters has elected a leader.', 'paper §5.1, §5.2'],
  lost: ['Connection lost', 'The node that served this page does not answer. The page tries the other members in turn; what it shows is old.', ''],
  lag: ['Last entry, and lag', 'The index of the newest entry in the log of this node, and how many entries of the leader’s log it lacks. While it lags, the leader counts on the others.', 'paper §5.3'],
  writes: ['Writes', 'Entries that were committed in a second. During an election there are none.', 'paper §5.3'],
  p99: ['p99', 'All writes but one in a hundred had their answer in this time.', 'paper §9.3'],
};
/// What the spans of the timeline mean.
const SPANS_MEAN = {
  leader: ['leads', 'Each term has one leader at most.', 'paper §5.2'],
  election: ['campaigns', 'It asks the others for pre-votes, and with a majority of those for votes.', 'paper §5.2; thesis §9.6'],
  down: ['no answer', 'No other node hears it. It catches up when it is back.', 'paper §5.5'],
  slow: ['slow disk', 'A sync takes several times as long as usual. A majority of quicker disks does not wait for it.', 'paper §5.3; thesis §10.2.1'],
  cut: ['link cut', 'It and the leader do not hear each other.', 'paper §5.2; thesis §6.2'],
  follower: ['follows', 'It answers, and hears a leader or waits for one.', 'paper §5.2'],
  none: ['No leader', 'Between two terms no write completes.', 'paper §5.1'],
};
const LINKS = {
  up: ['Link', 'The leader sends appends over it, and gets acknowledgements.', 'paper §5.3'],
  slow: ['Slow link', 'Messages take longer than usual. The majority may do without this node.', 'paper §5.3'],
  quiet: ['Quiet link', 'Nothing is heard from its other end.', 'paper §5.2'],
  cut: ['Cut link', 'The two nodes do not hear each other, though others hear both.', 'paper §5.2; thesis §6.2, §9.6'],
  idle: ['Link', 'Open, with no appends on their way.', 'paper §5.2'],
};
const ROLES = { leader: 'Leader', follower: 'Follower', candidate: 'Candidate', pre_candidate: 'Pre-candidate',
  learner: 'Learner', witness: 'Witness', removed: 'Removed' };
const source_of = reference => (reference ?? '').replace(/^(paper|thesis)/, 'Raft $1');
