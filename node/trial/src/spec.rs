//! The author's part of a trial.

use crate::{outside::NewHandler, rng::Rng};
use quorate::{At, Service};

/// The verdict of an author's check; the error says what does not hold.
type Verdict = Result<(), String>;
pub(crate) type New<S> = Box<dyn Fn() -> S + Send + Sync>;
type Commands<S> = Box<dyn Fn(&mut Rng, &[<S as Service>::Reply]) -> <S as Service>::Command + Send + Sync>;
type Queries<S> = Box<dyn Fn(&mut Rng) -> <S as Service>::Query + Send + Sync>;
type Invariant<S> = Box<dyn Fn(&S, &At) -> Verdict + Send + Sync>;
/// A model as it runs.
pub(crate) type Follows<S> = Box<dyn FnMut(&<S as Service>::Command, &<S as Service>::Reply, &At) -> Verdict>;
type Model<S> = Box<dyn Fn() -> Follows<S> + Send + Sync>;

/// The service, its inputs, and the author's checks.
pub(crate) struct Spec<S: Service> {
    pub(crate) new: New<S>,
    pub(crate) commands: Option<Commands<S>>,
    pub(crate) queries: Option<Queries<S>>,
    pub(crate) invariants: Vec<Invariant<S>>,
    pub(crate) model: Option<Model<S>>,
    pub(crate) effects: Option<NewHandler<S>>,
}
