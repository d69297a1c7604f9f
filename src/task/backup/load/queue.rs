//! What waits for a session, and what may begin: of the statements that nothing before them stands in the way of, the one about the largest table. Pure.

/// So many statements wait at most: `way` says how long each is, at most.
const WAITING_MOST: usize = 256;

/// Something that statements use: together, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// By its oid. A tree of partitions is meant by its root.
    Table(i64),
    /// The memory for index builds.
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub of: Resource,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With others of this mode at one time.
    Shared,
    Exclusive,
    /// Exclusive, for a foreign key of this table. Those of one table keep their order: one to a partitioned table has constraints for its partitions, too,
    /// and PostgreSQL gives those any name that is free (`ChooseConstraintName`), such as that of the next key in the dump.
    Referencing,
    /// Exclusive, for a foreign key to this table: either of two foreign keys may come first.
    Referenced,
}

/// Statements in their order, and the uses of those that run.
pub struct Queue<T> {
    waiting: Vec<Waiting<T>>,
    running: Vec<(u64, Vec<Use>)>,
    last: u64,
}

struct Waiting<T> {
    what: T,
    uses: Vec<Use>,
    bytes: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), running: Vec::new(), last: 0 }
    }
}

impl<T> Queue<T> {
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MOST
    }

    /// Returns whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// `bytes`: how large its table is.
    pub fn push(&mut self, what: T, uses: Vec<Use>, bytes: u64) {
        self.waiting.push(Waiting { what, uses, bytes });
    }

    /// Takes what may begin now, and the number by which its end is told.
    pub fn begin(&mut self) -> Option<(u64, T)> {
        let may_begin = |at: &usize| {
            let uses = &self.waiting[*at].uses;
            let is_free = self.running.iter().all(|(_, running)| !collide(uses, running));
            is_free && self.waiting[..*at].iter().all(|before| !needs(uses, &before.uses))
        };
        // Of several of one size, the first.
        let at = (0..self.waiting.len()).filter(may_begin).rev().max_by_key(|at| self.waiting[*at].bytes)?;
        let Waiting { what, uses, .. } = self.waiting.remove(at);
        self.last += 1;
        self.running.push((self.last, uses));
        Some((self.last, what))
    }

    pub fn end(&mut self, number: u64) {
        self.running.retain(|(running, _)| *running != number);
    }
}

fn collide(uses: &[Use], others: &[Use]) -> bool {
    any_pair(uses, others, |one, other| one.of == other.of && (one.mode, other.mode) != (Mode::Shared, Mode::Shared))
}

/// Returns whether the statement of `before` must have ended, as the dump has it first. Memory is only not used by two at one time, and a foreign key needs
/// none of another table: where each waited for all before it, a session had nothing to do for half a second of a restore of six.
fn needs(uses: &[Use], before: &[Use]) -> bool {
    use Mode::{Referenced, Referencing, Shared};
    any_pair(uses, before, |one, other| {
        let is_any_order = matches!(
            (one.mode, other.mode),
            (Shared, Shared) | (Referenced, Referencing | Referenced) | (Referencing, Referenced)
        );
        one.of == other.of && one.of != Resource::Memory && !is_any_order
    })
}

fn any_pair(uses: &[Use], others: &[Use], is: impl Fn(&Use, &Use) -> bool) -> bool {
    uses.iter().any(|one| others.iter().any(|other| is(one, other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(table: i64) -> Vec<Use> {
        vec![Use { of: Resource::Table(table), mode: Mode::Shared }]
    }

    fn key(table: i64) -> Vec<Use> {
        vec![Use { of: Resource::Table(table), mode: Mode::Exclusive }]
    }

    fn foreign_key(table: i64, other: i64) -> Vec<Use> {
        [(table, Mode::Referencing), (other, Mode::Referenced)]
            .map(|(table, mode)| Use { of: Resource::Table(table), mode })
            .to_vec()
    }

    /// All that may begin now.
    fn begin(queue: &mut Queue<&'static str>) -> Vec<(u64, &'static str)> {
        std::iter::from_fn(|| queue.begin()).collect()
    }

    #[test]
    fn indexes_of_one_table_are_built_together_and_constraints_alone() {
        let mut queue = Queue::default();
        queue.push("key of 1", key(1), 10);
        queue.push("index a of 1", index(1), 10);
        queue.push("index b of 1", index(1), 10);
        queue.push("key of 2", key(2), 10);
        queue.push("second key of 1", key(1), 10);
        assert_eq!(begin(&mut queue), [(1, "key of 1"), (2, "key of 2")]);
        queue.end(2);
        assert_eq!(begin(&mut queue), []);
        queue.end(1);
        assert_eq!(begin(&mut queue), [(3, "index a of 1"), (4, "index b of 1")]);
        queue.end(3);
        assert_eq!(begin(&mut queue), [], "one index is still built");
        queue.end(4);
        assert_eq!(begin(&mut queue), [(5, "second key of 1")]);
        assert!(!queue.is_idle());
        queue.end(5);
        assert!(queue.is_idle());
    }

    #[test]
    fn foreign_keys_wait_for_the_keys_before_them_and_for_both_their_tables() {
        let mut queue = Queue::default();
        queue.push("key of 1", key(1), 1);
        queue.push("1 to 2", foreign_key(1, 2), 1);
        queue.push("2 to 3", foreign_key(2, 3), 1);
        queue.push("3 to 2", foreign_key(3, 2), 1);
        queue.push("itself", foreign_key(6, 6), 1);
        assert_eq!(begin(&mut queue), [(1, "key of 1"), (2, "2 to 3"), (3, "itself")], "2 to 3 does not need 1 to 2");
        queue.end(1);
        assert_eq!(begin(&mut queue), [], "2 is used by 2 to 3");
        queue.end(2);
        assert_eq!(begin(&mut queue), [(4, "1 to 2")]);
        queue.end(4);
        assert_eq!(begin(&mut queue), [(5, "3 to 2")]);
    }

    #[test]
    fn a_foreign_key_does_not_wait_behind_one_that_waits_for_an_index() {
        let mut queue = Queue::default();
        queue.push("index of 1", index(1), 1);
        queue.push("1 to 2", foreign_key(1, 2), 1);
        queue.push("3 to 2", foreign_key(3, 2), 1);
        queue.push("later key of 2", key(2), 1);
        assert_eq!(begin(&mut queue), [(1, "index of 1"), (2, "3 to 2")]);
        queue.end(2);
        assert_eq!(begin(&mut queue), [], "the key stays behind 1 to 2");
    }

    #[test]
    fn foreign_keys_of_one_table_keep_their_order_as_the_names_of_the_first_are_chosen_among_those_that_are_free() {
        let mut queue = Queue::default();
        queue.push("index of 2", index(2), 1);
        queue.push("1 to 2", foreign_key(1, 2), 1);
        queue.push("1 to 3", foreign_key(1, 3), 100);
        assert_eq!(begin(&mut queue), [(1, "index of 2")]);
        queue.end(1);
        assert_eq!(begin(&mut queue), [(2, "1 to 2")]);
        queue.end(2);
        assert_eq!(begin(&mut queue), [(3, "1 to 3")]);
    }

    #[test]
    fn the_largest_table_comes_first_where_nothing_stands_in_its_way() {
        let mut queue = Queue::default();
        queue.push("small", index(1), 1);
        queue.push("large", index(2), 100);
        queue.push("as large", index(3), 100);
        assert_eq!(begin(&mut queue), [(1, "large"), (2, "as large"), (3, "small")]);
    }

    #[test]
    fn one_build_at_a_time_has_all_the_memory() {
        let of_vectors = |table| [index(table), vec![Use { of: Resource::Memory, mode: Mode::Exclusive }]].concat();
        let mut queue = Queue::default();
        queue.push("few vectors", of_vectors(1), 5);
        queue.push("many vectors", of_vectors(2), 50);
        queue.push("numbers", index(1), 5);
        assert_eq!(begin(&mut queue), [(1, "many vectors"), (2, "numbers")]);
        queue.end(1);
        assert_eq!(begin(&mut queue), [(3, "few vectors")]);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let mut queue = Queue::default();
        for _ in 0..WAITING_MOST {
            assert!(!queue.is_full());
            queue.push("index", index(1), 1);
        }
        assert!(queue.is_full());
    }
}
