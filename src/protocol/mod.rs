//! The protocol, pure: no clock, no randomness, no I/O.
//!
//! # Roles
//!
//! | here | Gray & Lamport | what |
//! |---|---|---|
//! | [`Replica`] | acceptor, leader, learner | one of the 2F+1 coordinator processes |
//! | [`Participant`] | resource manager (RM) | one session of a service that owns state and votes |
//! | [`Initiator`] | client | begins transactions, asks for commit, learns the outcome |
//!
//! A **branch** is one session's part in one transaction; the **roster** are all of them, fixed once
//! by the initiator. One Paxos instance, named by the [`CommitId`](types::CommitId), decides one
//! transaction; its value is the [`Outcome`](types::Outcome).
//!
//! # The rules
//!
//! 1. **Ballot 0 belongs to the votes.** Each branch sends its vote to all replicas. A replica that
//!    holds `Prepared` or `ReadOnly` of the whole roster has accepted Commit at ballot 0; one that
//!    holds a single `Aborted` has accepted Abort at ballot 0. The two never both happen anywhere,
//!    because a branch never says both.
//! 2. **Abort at ballot 0 is final even from a single replica.** Commit at ballot 0, and everything
//!    above, takes a majority *at the same ballot*. (Counter-example without the last words:
//!    replica 3 alone has accepted Commit at ballot 0. Ballot 1 reaches replicas 1 and 2, proposes
//!    Abort, and only 1 accepts. Ballot 2 reaches 2 and 3, is bound to Commit, and only 3 accepts.
//!    Ballot 3 reaches 1 and 2, is bound to Abort, and only 2 accepts. A learner that adds up 1 and
//!    2 says Abort; ballot 4 reaches 1 and 3, is bound to the Commit of ballot 2, and it is chosen.)
//! 3. **Above ballot 0** a leader is bound to the outcome of the highest ballot that a majority
//!    reports; if there is none it is free, and then it takes Commit if the *union* of the reported
//!    votes is complete, else Abort. This makes one instance with bundled votes the same protocol
//!    as the paper's N instances: a leader's Abort stands for `prepared` in each instance whose vote
//!    was reported and `aborted` in the free ones.
//! 4. **Only the session named in the roster votes, and it says one thing.** Anyone else asks, the
//!    same participant after a restart included.
//! 5. **Commit travels with those whom it must be told** ([`Unapplied`](message::Unapplied)): a
//!    replica can accept Commit without having seen a vote. Without the roster it would take the
//!    transaction for finished while prepared branches wait; without knowing who voted `ReadOnly`
//!    it would push the commit to a branch that has nothing to commit.
//! 6. **Saved before sent, released in order**: see [`effects`].
//!
//! # Messages
//!
//! | message | from | to | sent when |
//! |---|---|---|---|
//! | `BeginCommit` | initiator | relay | commit is asked for; again, to the next replica, when nothing is heard |
//! | `Prepare` | relay | session | a relay is asked, to each branch whose vote it does not hold |
//! | `Vote` | session | replicas | the branch is durable, or cannot be; again until the outcome is known |
//! | `Phase2b` | replica | initiator, branches | accepted; at ballot 0 one report stands for all votes |
//! | `Applied` | session | replicas | the commit is durable in the branch |
//! | `Phase1a`, `Phase2a` | leader of a ballot | replicas | votes are overdue, or somebody who may insists |
//! | `Phase1b`, `Phase2b`, `Nack` | replica | leader | promised, accepted, refused |
//! | `Phase2b` at ballot 0 | replica | replicas | `Applied` is overdue: has it been chosen? |
//! | `Decided` | replica | replicas, initiator, operator | chosen |
//! | `Finish` | replica | session | chosen; pushed until `Applied` |
//! | `Ask`, `Undecided`, `Busy` | anyone, replica | replica, asker | what came of it? |
//! | `ForceAbort` | operator, initiator | replica | a ballot now |
//! | `Rollback`, `LetGo` | initiator, relay | relay, session | commit will not be asked for |
//! | `Inquire`, `Status`, `Forgotten`, `Resolve`, `Resolved` | initiator, operator | replica | what do you know? |
//! | `Announce` | replica | everyone | they connect, it is time, or a generation was opened or settled |
//! | `NotOpen`, `Expired` | replica | whoever asked | the generation is not open here; it is settled |
//! | `Log` | replica | replicas | the control log: Multi-Paxos |
//! | `Freeze`, `Frozen`, `Collect`, `Collected` | leader of the log, replica | replica, leader | a closed generation is to be settled |
//! | `Fetch`, `State` | replica, operator | replica | somebody is behind |
//! | `Reconfigure`, `Release`, `Declined` | operator, replica | replica, operator | the membership changes, a commit is let go |
//!
//! # From `PaxosCommit.tla` to functions
//!
//! The specification (Gray & Lamport, appendix A.3) has one Paxos instance per resource manager;
//! here their messages are bundled into one instance per transaction.
//!
//! | action | function |
//! |---|---|
//! | `RMPrepare` | `participant/voting.rs`: `prepare` asks the resource manager, `on_prepared` votes |
//! | `RMChooseToAbort` | `participant/voting.rs`: `on_prepared`, `prepare` (unknown, let go, poisoned) |
//! | `RMRcvCommitMsg`, `RMRcvAbortMsg` | `participant/finishing.rs`: `on_outcome` |
//! | `Phase1a` | `replica/commit/ballots.rs`: `start_ballots` |
//! | `Phase1b` | `replica/commit/ballots.rs`: `on_phase1a` |
//! | `Phase2a` | `replica/commit/ballots.rs`: `on_phase1b`; the value in `replica/commit/recovery.rs`: `on_report` |
//! | `Phase2b` (ballot 0) | `replica/commit/voting.rs`: `on_vote`; `replica/commit/acceptor.rs`: `vote` |
//! | `Phase2b` (above) | `replica/commit/ballots.rs`: `on_phase2a` |
//! | `Decide` | `learn.rs`: `on_phase2b`, in every learner; `replica/commit/deciding.rs`: `decide` |
//!
//! # What is assumed
//!
//! Processes crash and come back; they do not lie. Messages are lost, doubled, delayed and
//! reordered, not forged. What was saved is there after a crash. A resource manager's commit and
//! rollback are durable when they return, and idempotent.
//!
//! # What holds
//!
//! `tests/invariant` lists the invariants; the simulator (`tests/simulator`) and the model checkers
//! (`tests/model`, `tests/control`) hold them at every step. Names of functions here are those of the papers.
//!
//! # Generations, and how they are forgotten
//!
//! A coordinator that never forgets fills its disk. One that forgets wrongly tells a prepared branch
//! to abort what others have committed. And what was forgotten must not come back: through a replica
//! that was away, or through a vote that was on its way for an hour. Transactions therefore belong
//! to **generations**, and one small log ([`paxos::log`]) orders what happens to these:
//!
//! | entry | what follows |
//! |---|---|
//! | [`Open`](types::Open) | new transactions begin in this generation and run on its configuration; so does the log |
//! | [`Settle`](types::Settle) | every transaction of an old generation, or of a part of it, has come to its end |
//! | `Release` | an operator lets a settled commit go that some branch will never apply |
//!
//! A generation is **open** until the second one after it is; then it is **closed**: replicas take
//! part in nothing there that they do not know already. A closed one is settled, the oldest first:
//!
//! 1. The leader of the log, its phase 1 done, asks the replicas of *that generation's*
//!    configuration to freeze it. A replica saves that, for ever and whoever asked, and takes no
//!    vote, promise or accept there any more. It still answers outcomes that it knows.
//! 2. From a majority of them the leader computes every outcome by the rule of recovery. **It tells
//!    nobody.** It proposes the list of the commits that are not known to be applied by all.
//! 3. **The chosen Settle is the last ballot of every instance in its range**: freezing was its
//!    promise, the slot is its accept. A list found in phase 1 is proposed unchanged.
//! 4. Whoever learns it drops, in one save, every record that is not listed, and adopts the commits
//!    that are; they stay until all their branches have said `Applied`. To anything else up to the
//!    horizon the answer is `Expired`.
//!
//! **One `Expired` is final.** A commit is listed as long as some branch has not applied it; so to a
//! branch that still stands prepared it is Abort. Whether it still does, only its resource manager
//! knows: another session may have committed it meanwhile. To anyone else it says "forgotten".
//!
//! Three things that could go wrong, and why they do not:
//!
//! - **A replica that was away.** Replica 3 holds a vote of generation 1 and is cut off. The others
//!   abort the transaction, settle generation 1 and forget it. Replica 3 comes back and starts a
//!   ballot: were the others to answer like acceptors that never heard of it, the vote that it holds
//!   could make a Commit. They answer `Expired`; it takes over the log, horizon and list together,
//!   and drops what it held.
//! - **A late vote.** A branch's `Prepared` arrives at replica 3 when replicas 1 and 2 have frozen
//!   the generation without it, and the list says nothing of the transaction. Replica 3 alone may
//!   accept it, which is no majority: any majority that could have decided has a member that froze,
//!   and froze before it voted. When it learns the Settle, the branch is told `Expired`, and aborts.
//! - **Why not recover what is undecided, and list the result?** Three leaders: the first lists an
//!   undecided transaction as aborted, its entry reaches one replica. The second finds the slot
//!   free, and the transaction commits by an ordinary ballot, then a third leader finds the first
//!   one's list in phase 1 and must propose it: the commit is in no list, and a branch that has not
//!   applied it is told `Expired`. With freezing no ordinary ballot can decide anything in between.
//!
//! A replica whose disk is lost never comes back under its name: the next `Open` puts a new one in
//! its place. It takes part from that generation on; older ones finish on the majority of their own
//! configuration, and what they leave behind it learns from the list. One that was removed stays up
//! until the last generation that names it is settled, and is told so
//! ([`ReplicaNotice::Removed`](replica::ReplicaNotice::Removed)).

pub mod effects;
pub mod initiator;
pub mod learn;
pub mod message;
pub mod participant;
pub mod paxos;
pub mod replica;
pub mod types;

pub use effects::{Effects, Host, Input, TimerOp};
pub use initiator::Initiator;
pub use participant::Participant;
pub use replica::Replica;
