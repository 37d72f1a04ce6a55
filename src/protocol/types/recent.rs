//! What was decoded last, to be shared by what says the same.
//!
//! Names and rosters come again and again: each message of a vote brings a roster, and services that
//! work together are the same few for thousands of transactions. Whoever decodes one that was decoded
//! a moment ago gets a handle of that, and allocates nothing.

use std::cell::RefCell;
use std::thread::LocalKey;

/// How many are remembered; each has one place where it can stand.
const PLACES: usize = 16;

/// Some values that came lately. One for each thread and kind.
pub(super) struct Recent<T>([Option<T>; PLACES]);

impl<T: Clone> Recent<T> {
    pub(super) const fn new() -> Self {
        Recent([const { None }; PLACES])
    }

    /// The value that `is_it` knows, if it stands at the place of `hint`; else one that is made, and
    /// stands there from now on. What cannot be made leaves everything as it was.
    pub(super) fn get_or_make<E>(
        recent: &'static LocalKey<RefCell<Recent<T>>>,
        hint: usize,
        is_it: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        recent.with_borrow_mut(|Recent(places)| {
            let place = &mut places[hint % PLACES];
            if let Some(known) = place.as_ref().filter(|known| is_it(known)) {
                return Ok(known.clone());
            }
            let made = make()?;
            *place = Some(made.clone());
            Ok(made)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn the_same_is_made_once_and_what_fails_replaces_nothing() {
        thread_local! {
            static RECENT: RefCell<Recent<Rc<str>>> = const { RefCell::new(Recent::new()) };
        }
        let get = |hint, text: &str| {
            let make = || match text {
                "wrong" => Err("wrong"),
                text => Ok(Rc::from(text)),
            };
            Recent::get_or_make(&RECENT, hint, |known| **known == *text, make)
        };
        let first = get(1, "a").unwrap();
        assert!(Rc::ptr_eq(&first, &get(1, "a").unwrap()));
        assert_eq!(get(1 + PLACES, "wrong"), Err("wrong"));
        assert!(Rc::ptr_eq(&first, &get(1, "a").unwrap()));
        // Another one takes its place.
        assert_eq!(&*get(1 + PLACES, "b").unwrap(), "b");
        let again = get(1, "a").unwrap();
        assert_eq!((&*again, Rc::ptr_eq(&first, &again)), ("a", false));
    }
}
