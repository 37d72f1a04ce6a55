//! The published article "Paxos By Example", step by step, on this crate's acceptor, proposer and
//! learner: who sends what to whom, and what each acceptor then holds.
//!
//! ```text
//! cargo run --example paxos_by_example
//! ```
//!
//! Two things of the article are not part of Paxos, and live here, beside the crate's types: its
//! prepare requests carry a value, and its acceptors answer with the last proposal that they
//! *acknowledged* (whose prepare request they answered), although nobody *accepted* it. Runs 1 to 3
//! show what may be done with that, and run 4 what may not.

use std::fmt;

use paxos_commit::protocol::paxos::{
    Acceptor, Acceptors, Ballot, Choice, Learner, Nack, Proposer, Refusal, ReplicaId,
};

/// What the proposers of a run learned to be chosen: the proposer's name, then the value.
pub(crate) type Learned = Vec<(char, u64)>;

/// How a proposer reads the acknowledged proposals that come with the promises.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// By the book: they are no part of Paxos. Whoever is free proposes its own value.
    Ignored,
    /// The article: whoever is free proposes the acknowledged value. Accepted values bind first.
    WhenFree,
    /// The mistake: the highest number wins, acknowledged or accepted alike.
    LikeAccepted,
}

/// A proposal as the article writes it, `[n=2, v=8]`. Sorted by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Proposal {
    number: Ballot,
    value: u64,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[n={}, v={}]", self.number.round, self.value)
    }
}

/// The crate's acceptor and, beside it, the proposal that the article's acceptor also remembers.
struct ArticleAcceptor {
    name: char,
    acceptor: Acceptor<u64>,
    acknowledged: Option<Proposal>,
}

/// The answer to a prepare request. By the book it is `accepted` alone.
struct Promise {
    accepted: Option<Proposal>,
    acknowledged: Option<Proposal>,
}

impl ArticleAcceptor {
    fn new(name: char) -> Self {
        ArticleAcceptor {
            name,
            acceptor: Acceptor::default(),
            acknowledged: None,
        }
    }

    fn accepted(&self) -> Option<Proposal> {
        let (number, value) = *self.acceptor.accepted()?;
        Some(Proposal { number, value })
    }

    fn on_prepare(&mut self, request: Proposal) -> Result<Promise, Nack> {
        self.acceptor.promise(request.number)?;
        Ok(Promise {
            accepted: self.accepted(),
            acknowledged: self.acknowledged.replace(request),
        })
    }
}

/// The crate's proposer, the proposal that it would like to make, and a learner that hears who
/// accepted it.
struct ArticleProposer {
    name: char,
    wish: Proposal,
    rule: Rule,
    proposer: Proposer<u64>,
    /// The highest proposal that any promise told, accepted or acknowledged.
    highest_told: Option<Proposal>,
    proposal: Option<Proposal>,
    learner: Learner<u64>,
}

impl ArticleProposer {
    fn new(name: char, round: u64, value: u64, rule: Rule) -> Self {
        // The replica in a ballot keeps the numbers of two proposers apart. Here the rounds differ
        // already, so a ballot is printed as its round alone, the article's n.
        let number = Ballot {
            round,
            replica: id(name),
        };
        ArticleProposer {
            name,
            wish: Proposal { number, value },
            rule,
            proposer: Proposer::new(number, x_y_z()),
            highest_told: None,
            proposal: None,
            learner: Learner::default(),
        }
    }

    fn on_promise(&mut self, from: ReplicaId, promise: &Promise) {
        let told = promise.accepted.max(promise.acknowledged);
        self.highest_told = self.highest_told.max(told);
        let accepted = promise.accepted.map(|held| (held.number, held.value));
        let number = self.wish.number;
        // The proposer answers once, at the promise that completes a majority.
        if let Some(choice) = self.proposer.on_promise(from, number, accepted) {
            let value = self.choose(choice);
            self.proposal = Some(Proposal { number, value });
            // `Proposer::propose` panics at a value that the promises forbid, so whoever makes the
            // mistake has to go round it.
            if self.rule != Rule::LikeAccepted {
                self.proposer.propose(value);
            }
        }
    }

    fn choose(&self, choice: Choice<u64>) -> u64 {
        let (value, why) = match (self.rule, choice, self.highest_told) {
            (Rule::LikeAccepted, _, Some(told)) => {
                (told.value, "UNSAFE, the highest number told wins:")
            }
            (_, Choice::Bound(value), _) => (value, "it is BOUND to the accepted"),
            (Rule::WhenFree, Choice::Free, Some(told)) => {
                (told.value, "it is FREE, and takes the acknowledged")
            }
            (_, Choice::Free, _) => (self.wish.value, "it is FREE, and takes its own"),
        };
        println!("   {} has a majority: {why} {value}.", self.name);
        value
    }
}

fn id(name: char) -> ReplicaId {
    ReplicaId(u32::from(name))
}

fn x_y_z() -> Acceptors {
    Acceptors::new(['X', 'Y', 'Z'].map(id)).expect("three different names")
}

/// The three acceptors, and the network, which delivers when the run says so.
struct Stage([ArticleAcceptor; 3]);

impl Stage {
    fn new() -> Self {
        Stage(['X', 'Y', 'Z'].map(ArticleAcceptor::new))
    }

    /// Phase 1 of `proposer` at the acceptors `at`.
    fn prepare(&mut self, proposer: &mut ArticleProposer, at: &str) {
        for acceptor in self.0.iter_mut().filter(|one| at.contains(one.name)) {
            let (p, a) = (proposer.name, acceptor.name);
            println!("   {p} -> {a}   prepare {}", proposer.wish);
            match acceptor.on_prepare(proposer.wish) {
                Ok(promise) => {
                    let accepted = or_nothing(promise.accepted);
                    let acknowledged = or_nothing(promise.acknowledged);
                    println!(
                        "   {a} -> {p}   promise: accepted {accepted}, acknowledged {acknowledged}"
                    );
                    proposer.on_promise(id(a), &promise);
                }
                // The article's acceptor ignores the request. Ours answers; this answer gets lost.
                Err(nack) => println!("   {a} -> {p}   {} (lost on the way)", nack_text(nack)),
            }
        }
        self.show();
    }

    /// Phase 2 of `proposer` at the acceptors `at`.
    fn accept(&mut self, proposer: &mut ArticleProposer, at: &str) {
        let proposal = proposer.proposal.expect("phase 1 was run to its end");
        for acceptor in self.0.iter_mut().filter(|one| at.contains(one.name)) {
            let (p, a) = (proposer.name, acceptor.name);
            println!("   {p} -> {a}   accept {proposal}");
            match acceptor.acceptor.accept(proposal.number, proposal.value) {
                Ok(()) => {
                    println!("   {a} -> {p}   accepted {proposal}");
                    let (number, value) = (proposal.number, proposal.value);
                    let learner = &mut proposer.learner;
                    learner.on_accepted(&x_y_z(), id(a), number, value);
                }
                Err(Refusal::Nack(nack)) => {
                    println!("   {a} -> {p}   {}", nack_text(nack));
                    proposer.proposer.on_nack(nack);
                }
                Err(refusal) => println!("   {a} -> {p}   {refusal}"),
            }
        }
        self.show();
        if let Some(value) = proposer.learner.chosen() {
            let name = proposer.name;
            println!("   A majority accepted {proposal}: {name} learns that {value} is CHOSEN.");
        }
    }

    fn show(&self) {
        println!("        promised   acknowledged   accepted");
        for one in &self.0 {
            let (name, round) = (one.name, one.acceptor.promised().round);
            let promised = or_nothing(Some(round).filter(|round| *round > 0));
            let acknowledged = or_nothing(one.acknowledged);
            let accepted = or_nothing(one.accepted());
            println!("      {name} {promised:<10} {acknowledged:<14} {accepted}");
        }
    }
}

fn or_nothing(held: Option<impl fmt::Display>) -> String {
    held.map_or("nothing".into(), |held| held.to_string())
}

fn nack_text(nack: Nack) -> String {
    format!("nack: I have promised {}", nack.promised.round)
}

fn step(text: &str) {
    println!("\n - {text}");
}

/// How runs 1 to 3 begin: X and Y have promised 2 to A, Z has promised 4 to B.
fn opening(rule: Rule) -> (Stage, ArticleProposer, ArticleProposer) {
    let mut stage = Stage::new();
    let mut a = ArticleProposer::new('A', 2, 8, rule);
    let mut b = ArticleProposer::new('B', 4, 5, rule);
    step("A's prepare requests reach X and Y first.");
    stage.prepare(&mut a, "XY");
    step("B's prepare request reaches Z first.");
    stage.prepare(&mut b, "Z");
    (stage, a, b)
}

/// The article's run, with C at its end. Under [`Rule::WhenFree`] it is the article's to the letter.
pub(crate) fn nothing_accepted_in_time(rule: Rule) -> Learned {
    let (mut stage, mut a, mut b) = opening(rule);
    step("A's prepare request reaches Z, which has promised 4 to B and ignores what is below.");
    stage.prepare(&mut a, "Z");
    step("B's prepare requests reach X and Y: 4 is higher than 2, so they promise again.");
    stage.prepare(&mut b, "XY");
    step("A's accept requests were slow: all have promised 4. A would have to begin anew above 4.");
    stage.accept(&mut a, "XYZ");
    step("B sends its accept requests.");
    stage.accept(&mut b, "XYZ");
    let c = confirm(&mut stage, rule);
    what_was_learned(&[a, b, c])
}

/// The same, but A's accept request reaches X before B's prepare request does.
pub(crate) fn accepted_by_one_in_time(rule: Rule) -> Learned {
    let (mut stage, mut a, mut b) = opening(rule);
    step("One of A's accept requests is fast: X accepts [n=2, v=8].");
    stage.accept(&mut a, "X");
    step("B's prepare requests reach X and Y. X tells what it has accepted.");
    stage.prepare(&mut b, "XY");
    step("A's other accept requests come too late.");
    stage.accept(&mut a, "YZ");
    step("B sends its accept requests.");
    stage.accept(&mut b, "XYZ");
    let c = confirm(&mut stage, rule);
    what_was_learned(&[a, b, c])
}

fn confirm(stage: &mut Stage, rule: Rule) -> ArticleProposer {
    let mut c = ArticleProposer::new('C', 6, 7, rule);
    step("Later C comes with [n=6, v=7]. It can only confirm what was chosen.");
    stage.prepare(&mut c, "XYZ");
    stage.accept(&mut c, "XYZ");
    c
}

/// 8 is chosen, B is acknowledged and dies, C follows: the run that tells the rules apart.
pub(crate) fn acknowledged_above_accepted(rule: Rule) -> Learned {
    let mut stage = Stage::new();
    let mut a = ArticleProposer::new('A', 2, 8, rule);
    let mut b = ArticleProposer::new('B', 4, 5, rule);
    let mut c = ArticleProposer::new('C', 6, 7, rule);
    step("A runs both phases at X and Y, undisturbed.");
    stage.prepare(&mut a, "XY");
    stage.accept(&mut a, "XY");
    step("B's prepare requests reach X and Z, which acknowledge [n=4, v=5]. Then B crashes.");
    stage.prepare(&mut b, "XZ");
    step("C's prepare requests reach X and Z. X has accepted [n=2, v=8], below B's number.");
    stage.prepare(&mut c, "XZ");
    step("C sends its accept requests to X and Z.");
    stage.accept(&mut c, "XZ");
    what_was_learned(&[a, b, c])
}

fn what_was_learned(proposers: &[ArticleProposer]) -> Learned {
    let learned = |one: &ArticleProposer| Some((one.name, *one.learner.chosen()?));
    proposers.iter().filter_map(learned).collect()
}

fn title(text: &str) {
    println!("\n\n{text}\n{}", "=".repeat(text.len()));
}

fn main() {
    println!(
        "Acceptors X, Y, Z; a majority is any two. Proposers A [n=2, v=8], B [n=4, v=5], C [n=6, v=7].
An acceptor that answers a prepare request numbered n PROMISES to accept nothing below n, and tells
the highest proposal that it has ACCEPTED. The article's acceptor also tells which proposal it
ACKNOWLEDGED last: one whose prepare request it answered, and which perhaps nobody ever accepted.
(By the book a prepare request carries n alone, so that there is nothing to acknowledge.)"
    );
    title("Run 1: the article. A free proposer takes the acknowledged value");
    let article = nothing_accepted_in_time(Rule::WhenFree);
    println!(
        "
   Why may B take 8? Because nothing was accepted when X and Y answered: Paxos leaves B free to
   propose anything, and 8 is as good as its own 5. It was a choice. Run 2 chooses otherwise."
    );
    title("Run 2: by the book. A free proposer takes its own value");
    let book = nothing_accepted_in_time(Rule::Ignored);
    title("Run 3: by the book, but X accepted A's proposal in time");
    let bound = accepted_by_one_in_time(Rule::Ignored);
    println!(
        "
   B cannot know whether a second acceptor accepted [n=2, v=8] too, which would have chosen it.
   So one accepted report takes away its freedom: that is what keeps Paxos safe."
    );
    title("Run 4, UNSAFE: an acknowledged proposal outranks an accepted one");
    let mistaken = acknowledged_above_accepted(Rule::LikeAccepted);
    println!(
        "
   Two values are chosen! [n=4, v=5] was B's wish before B knew anything; nobody accepted it.
   Its higher number hid the 8 that was really accepted, and chosen."
    );
    title("Run 5: the very same run, with this crate's `Proposer` deciding");
    let correct = acknowledged_above_accepted(Rule::WhenFree);
    title("Summary: who learned that which value is chosen");
    for (run, learned) in [
        ("1  the article's free choice          ", article),
        ("2  by the book                        ", book),
        ("3  accepted by one acceptor in time   ", bound),
        ("4  acknowledged treated like accepted ", mistaken),
        ("5  the same run, done right           ", correct),
    ] {
        let each: Vec<String> = learned
            .iter()
            .map(|(who, value)| format!("{who}: {value}"))
            .collect();
        println!("   {run} {}", each.join(", "));
    }
    println!(
        "
   A promise says what an acceptor will not do any more. Only what is accepted can be chosen,
   so only what is accepted binds. Where nothing is accepted, any value will do."
    );
}
