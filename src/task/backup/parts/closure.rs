//! Which statements of a dump a part of it takes: those of its objects, and of all that they need and the target lacks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::definitions::Item;
use super::names::Name;
use super::subject::{Class, Role, Subject};
use super::target::Existing;

/// At most so many notes of one kind are written.
const NOTED: usize = 20;

/// What belongs to a part.
#[derive(Debug, Default)]
pub struct Closure {
    /// Its items, as indexes in the dump's order.
    pub items: BTreeSet<usize>,
    /// The objects that it makes: those that were asked for, and what these need.
    pub made: BTreeSet<Name>,
    /// Tables and views that it needs and that are neither in it nor in the target, each with one that needs it.
    pub lacking: BTreeMap<Name, Name>,
    /// Names that decide about it: which of them the target has is to be asked before the last call.
    pub asked: BTreeSet<Name>,
    /// What is left out, and why.
    pub notes: Vec<String>,
}

/// `wanted`: objects of the dump to be made; `existing`: those among [`Closure::asked`] that the target has.
pub fn closure(items: &[Item], wanted: &BTreeSet<Name>, existing: &Existing) -> Closure {
    let mut choosing =
        Choosing { items, by_name: by_name(items), makers: makers(items), existing, wanted, closure: Closure::default() };
    choosing.choose();
    choosing.closure
}

/// The items about each object.
fn by_name(items: &[Item]) -> BTreeMap<&Name, Vec<usize>> {
    let mut by_name: BTreeMap<&Name, Vec<usize>> = BTreeMap::new();
    for (number, item) in items.iter().enumerate() {
        by_name.entry(&item.subject.of).or_default().push(number);
    }
    by_name
}

/// The role of the statement that makes each object of the dump.
fn makers(items: &[Item]) -> BTreeMap<&Name, &Role> {
    let subjects = items.iter().map(|item| &item.subject);
    let made = subjects.clone().filter(|subject| subject.role.makes_it()).map(|subject| (&subject.of, &subject.role));
    let identities = subjects.filter(|subject| subject.role == Role::Identity);
    made.chain(identities.filter_map(|subject| Some((subject.makes.as_ref()?, &Role::Sequence)))).collect()
}

struct Choosing<'a> {
    items: &'a [Item],
    by_name: BTreeMap<&'a Name, Vec<usize>>,
    makers: BTreeMap<&'a Name, &'a Role>,
    existing: &'a Existing,
    wanted: &'a BTreeSet<Name>,
    closure: Closure,
}

impl Choosing<'_> {
    fn choose(&mut self) {
        let mut open: Vec<Name> = self.wanted.iter().cloned().collect();
        let mut later = BTreeSet::new();
        self.closure.made.extend(open.iter().cloned());
        self.closure.asked.extend(open.iter().cloned());
        // Each name is taken once.
        while let Some(name) = open.pop() {
            if !name.schema.is_empty() {
                self.need(&Name::of_schema(&name.schema), &name, &mut open);
            }
            for number in self.by_name.get(&name).cloned().unwrap_or_default() {
                let item = &self.items[number];
                match &item.subject.role {
                    Role::ForeignKey { .. } | Role::Trigger | Role::Rule | Role::Attach { .. } | Role::Publication => {
                        later.insert(number);
                    }
                    _ => self.take(number, &mut open),
                }
            }
        }
        // These depend on what else is there, and bring nothing with them.
        for number in later {
            self.take_if_possible(number);
        }
        self.note_keys_of_others();
    }

    fn take(&mut self, number: usize, open: &mut Vec<Name>) {
        let item = &self.items[number];
        // An object of another class has the name of one that is made. (What is wanted exists where it is made under another name.)
        let Subject { of, class, .. } = &item.subject;
        let is_wanted = *class == Class::Relation && self.wanted.contains(of);
        if self.existing.has(*class, of) && !is_wanted {
            return;
        }
        self.closure.items.insert(number);
        if let Some(beside) = &item.subject.makes
            && self.closure.made.insert(beside.clone())
        {
            open.push(beside.clone());
        }
        for name in &item.names {
            self.need(name, &item.subject.of, open);
        }
    }

    fn need(&mut self, name: &Name, by: &Name, open: &mut Vec<Name>) {
        let maker = self.makers.get(name);
        self.closure.asked.insert(name.clone());
        let Some(maker) = maker else { return };
        if self.is_there(name) {
            return;
        }
        // Rows would be missing without a word.
        if matches!(maker, Role::Table | Role::View) {
            self.closure.lacking.entry(name.clone()).or_insert_with(|| by.clone());
            return;
        }
        self.closure.made.insert(name.clone());
        open.push(name.clone());
    }

    fn take_if_possible(&mut self, number: usize) {
        let item = &self.items[number];
        let of = &item.subject.of;
        self.closure.asked.extend(item.names.iter().cloned());
        let missing: Vec<&Name> = match &item.subject.role {
            Role::ForeignKey { to } => [to].into_iter().filter(|to| !self.is_there(to)).collect(),
            Role::Trigger | Role::Rule => {
                item.names.iter().filter(|name| self.makers.contains_key(*name) && !self.is_there(name)).collect()
            }
            Role::Attach { partition } => [partition].into_iter().filter(|name| !self.closure.made.contains(*name)).collect(),
            _ => {
                self.note(format!("left out: {of} is in a publication of the source ({})", in_a_line(item)));
                return;
            }
        };
        match missing.first() {
            None => {
                self.closure.items.insert(number);
            }
            Some(missing) => {
                let why = format!("{missing} is not there");
                self.note(format!("left out, as {why}: {}", in_a_line(item)));
            }
        }
    }

    /// Foreign keys of tables that stay as they are go with the table that they refer to.
    fn note_keys_of_others(&mut self) {
        let (mut notes, mut partitions) = (Vec::new(), Vec::new());
        for item in self.items {
            let of = &item.subject.of;
            match &item.subject.role {
                Role::ForeignKey { to } if self.closure.made.contains(to) && !self.closure.made.contains(of) => {
                    notes.push(format!("not made: {of} had a foreign key to it: {}", in_a_line(item)));
                }
                Role::Attach { partition } if self.closure.made.contains(partition) && !self.closure.made.contains(of) => {
                    partitions.push(format!("not attached to {of}, where its rows would appear: {}", in_a_line(item)));
                }
                _ => {}
            }
        }
        for note in notes.into_iter().chain(partitions) {
            self.note(note);
        }
    }

    fn is_there(&self, name: &Name) -> bool {
        self.closure.made.contains(name) || self.existing.names.contains(name)
    }

    fn note(&mut self, note: String) {
        match self.closure.notes.len() {
            ..NOTED => self.closure.notes.push(note),
            NOTED => self.closure.notes.push("and more of the kind".to_owned()),
            _ => {}
        }
    }
}

/// The first statement of an item on one line.
fn in_a_line(item: &Item) -> String {
    let text = item.texts().next().unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    if line.len() > 300 {
        line = line.chars().take(300).collect::<String>() + " …";
    }
    line
}

/// The partitions of a table at any depth, as the dump attaches them.
pub fn partitions(items: &[Item], of: &Name) -> BTreeSet<Name> {
    let mut attached: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    for item in items {
        if let Role::Attach { partition } = &item.subject.role {
            attached.entry(&item.subject.of).or_default().push(partition);
        }
    }
    let (mut found, mut open) = (BTreeSet::new(), vec![of]);
    while let Some(table) = open.pop() {
        for partition in attached.get(table).into_iter().flatten() {
            if found.insert((*partition).clone()) {
                open.push(partition);
            }
        }
    }
    found
}

/// Tables in an order in which each comes after those that it refers to, except where they refer to one another.
pub fn by_foreign_keys(items: &[Item], tables: &BTreeSet<Name>) -> Vec<Name> {
    let mut referred: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    for item in items {
        if let Role::ForeignKey { to } = &item.subject.role
            && tables.contains(to)
        {
            referred.entry(&item.subject.of).or_default().push(to);
        }
    }
    let (mut ordered, mut seen) = (Vec::new(), BTreeSet::new());
    // True: those that it refers to stand before it.
    let mut open: Vec<(&Name, bool)> = tables.iter().rev().map(|table| (table, false)).collect();
    while let Some((table, is_ready)) = open.pop() {
        if is_ready {
            ordered.push(table.clone());
        } else if seen.insert(table) {
            open.push((table, true));
            open.extend(referred.get(table).into_iter().flatten().map(|to| (*to, false)));
        }
    }
    ordered
}
