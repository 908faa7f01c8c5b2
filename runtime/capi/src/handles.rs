//! Handles: numbers in place of addresses, so that a wrong one is noticed and not followed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::border::Failure;
use crate::codes::{SMALTI_HANDLE, SMALTI_NULL};

/// Everything of one kind that is open. Numbers are not used again.
pub(crate) struct Table<T> {
    /// What C calls the kind.
    name: &'static str,
    /// Told apart from other tables' by its remainder.
    remainder: usize,
    open: RwLock<Open<T>>,
}

struct Open<T> {
    last: usize,
    by_number: BTreeMap<usize, Arc<T>>,
}

/// How many tables there may be.
const KINDS: usize = 4;

impl<T> Table<T> {
    pub(crate) const fn new(name: &'static str, remainder: usize) -> Table<T> {
        let open = Open { last: 0, by_number: BTreeMap::new() };
        Table { name, remainder, open: RwLock::new(open) }
    }

    /// Takes something in; its handle, never null.
    pub(crate) fn insert<H>(&self, value: T) -> *mut H {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        loop {
            open.last = open.last.wrapping_add(1);
            let number = open.last.wrapping_mul(KINDS).wrapping_add(self.remainder);
            // Where numbers are short they may come round.
            if number >= KINDS && !open.by_number.contains_key(&number) {
                open.by_number.insert(number, Arc::new(value));
                return std::ptr::without_provenance_mut(number);
            }
        }
    }

    /// What a handle stands for, kept alive by the answer even if it is closed meanwhile.
    pub(crate) fn get<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.by_number.get(&handle.addr()).cloned().ok_or_else(|| self.wrong(handle))
    }

    /// Forgets a handle.
    pub(crate) fn remove<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.by_number.remove(&handle.addr()).ok_or_else(|| self.wrong(handle))
    }

    fn wrong<H>(&self, handle: *const H) -> Failure {
        let name = self.name;
        if handle.is_null() {
            return Failure { code: SMALTI_NULL, message: format!("the {name} is null") };
        }
        let message = format!("the {name} is closed, or of another kind, or never was one");
        Failure { code: SMALTI_HANDLE, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_good_until_it_is_closed_and_for_its_kind_alone() {
        let (names, ages) = (Table::new("name", 0), Table::new("age", 1));
        let name: *mut () = names.insert("a");
        let age: *mut () = ages.insert(3);
        assert_eq!((*names.get(name).unwrap(), *ages.get(age).unwrap()), ("a", 3));
        assert!(names.get(age).is_err() && ages.get(name).is_err());
        assert!(names.get(std::ptr::null::<()>()).is_err());
        names.remove(name).unwrap();
        assert!(names.get(name).is_err() && names.remove(name).is_err());
        assert_ne!(name, names.insert("b"));
    }
}
