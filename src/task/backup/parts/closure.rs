//! Which statements of a dump a part of it takes: those of its objects, and of all that they need and the target lacks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::definitions::Item;
use super::names::Name;
use super::subject::{Class, Mention, Object, Role};
use super::target::Existing;

/// At most so many notes of one kind are written.
const NOTED: usize = 20;

/// What belongs to a part.
#[derive(Debug, Default)]
pub struct Closure {
    /// Its items, as indexes in the dump's order.
    pub items: BTreeSet<usize>,
    /// The objects that it makes: those that were asked for, and what these need.
    pub made: BTreeSet<Object>,
    /// Tables and views that it needs and that are neither in it nor in the target, each with one that needs it.
    pub lacking: BTreeMap<Name, Name>,
    /// Names that decide about it: which of them the target has is to be asked before the last call.
    pub asked: BTreeSet<Name>,
    /// What is left out, and why.
    pub notes: Vec<String>,
}

/// `wanted`: objects of the dump to be made; `existing`: those among [`Closure::asked`] that the target has.
pub fn closure(items: &[Item], wanted: &BTreeSet<Object>, existing: &Existing) -> Closure {
    let mut choosing =
        Choosing { items, by_object: by_object(items), makers: makers(items), existing, wanted, closure: Closure::default() };
    choosing.choose();
    choosing.closure
}

/// By name, the classes of the objects that the dump makes, with the role of the statement that makes each.
pub type Makers<'a> = BTreeMap<&'a Name, Vec<(Class, &'a Role)>>;

pub fn makers(items: &[Item]) -> Makers<'_> {
    let mut makers = Makers::new();
    for Item { subject, .. } in items {
        let (object, role) = match (&subject.role, &subject.makes) {
            (role, _) if role.makes_it() => ((subject.class, &subject.of), role),
            (Role::Identity, Some(sequence)) => ((sequence.class, &sequence.name), &Role::Sequence),
            _ => continue,
        };
        makers.entry(object.1).or_default().push((object.0, role));
    }
    makers
}

/// The items about each object.
fn by_object(items: &[Item]) -> BTreeMap<Object, Vec<usize>> {
    let makers = makers(items);
    let makes = |class: Class, name: &Name| makers.get(name).is_some_and(|made| made.iter().any(|(made, _)| *made == class));
    let mut by_object: BTreeMap<Object, Vec<usize>> = BTreeMap::new();
    for (number, Item { subject, .. }) in items.iter().enumerate() {
        let mut object = subject.object();
        // A comment on a column of a composite type.
        if !makes(Class::Relation, &object.name) && subject.role == Role::About && makes(Class::Type, &object.name) {
            object.class = Class::Type;
        }
        by_object.entry(object).or_default().push(number);
    }
    by_object
}

struct Choosing<'a> {
    items: &'a [Item],
    by_object: BTreeMap<Object, Vec<usize>>,
    makers: Makers<'a>,
    existing: &'a Existing,
    wanted: &'a BTreeSet<Object>,
    closure: Closure,
}

impl Choosing<'_> {
    fn choose(&mut self) {
        let mut open: Vec<Object> = self.wanted.iter().cloned().collect();
        let mut later = BTreeSet::new();
        self.closure.made.extend(open.iter().cloned());
        // Each object is taken once.
        while let Some(object) = open.pop() {
            self.closure.asked.insert(object.name.clone());
            if !object.name.schema.is_empty() {
                self.need_object(Object::schema(&object.name.schema), &object.name, &mut open);
            }
            for number in self.by_object.get(&object).cloned().unwrap_or_default() {
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

    fn take(&mut self, number: usize, open: &mut Vec<Object>) {
        let item = &self.items[number];
        let object = item.subject.object();
        // What exists gets no statement, unless it is wanted, and made under another name.
        if self.existing.has(&object) && !self.wanted.contains(&object) {
            return;
        }
        self.closure.items.insert(number);
        if let Some(beside) = &item.subject.makes
            && self.closure.made.insert(beside.clone())
        {
            open.push(beside.clone());
        }
        for mention in &item.names {
            self.need(mention, &item.subject.of, open);
        }
    }

    fn need(&mut self, mention: &Mention, by: &Name, open: &mut Vec<Object>) {
        self.closure.asked.insert(mention.name.clone());
        for object in self.meant(mention) {
            self.need_object(object, by, open);
        }
    }

    fn need_object(&mut self, object: Object, by: &Name, open: &mut Vec<Object>) {
        self.closure.asked.insert(object.name.clone());
        let Some(role) = self.maker(&object) else { return };
        if self.is_there(&object) {
            return;
        }
        // Rows would be missing without a word.
        if matches!(role, Role::Table | Role::View) {
            self.closure.lacking.entry(object.name).or_insert_with(|| by.clone());
            return;
        }
        self.closure.made.insert(object.clone());
        open.push(object);
    }

    /// The objects of the dump that a name may be of.
    fn meant(&self, mention: &Mention) -> Vec<Object> {
        let made = self.makers.get(&mention.name).into_iter().flatten().map(|(class, _)| *class);
        made.filter(|class| mention.may_be(*class)).map(|class| Object { class, name: mention.name.clone() }).collect()
    }

    fn maker(&self, object: &Object) -> Option<&Role> {
        self.makers.get(&object.name)?.iter().find(|(class, _)| *class == object.class).map(|(_, role)| *role)
    }

    fn take_if_possible(&mut self, number: usize) {
        let item = &self.items[number];
        let of = &item.subject.of;
        self.closure.asked.extend(item.names.iter().map(|mention| mention.name.clone()));
        let needed: Vec<Object> = match &item.subject.role {
            Role::ForeignKey { to } => vec![Object::relation(to)],
            Role::Trigger | Role::Rule => item.names.iter().flat_map(|mention| self.meant(mention)).collect(),
            Role::Attach { partition } => vec![Object::relation(partition)],
            _ => {
                self.note(format!("left out: {of} is in a publication of the source ({})", in_a_line(item)));
                return;
            }
        };
        let is_attached = matches!(item.subject.role, Role::Attach { .. });
        let is_there = |object: &&Object| if is_attached { self.closure.made.contains(object) } else { self.is_there(object) };
        match needed.iter().find(|object| !is_there(object)) {
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
                Role::ForeignKey { to } if self.makes(to) && !self.makes(of) => {
                    notes.push(format!("not made: {of} had a foreign key to it: {}", in_a_line(item)));
                }
                Role::Attach { partition } if self.makes(partition) && !self.makes(of) => {
                    partitions.push(format!("not attached to {of}, where its rows would appear: {}", in_a_line(item)));
                }
                _ => {}
            }
        }
        for note in notes.into_iter().chain(partitions) {
            self.note(note);
        }
    }

    /// Returns whether the part makes that table.
    fn makes(&self, table: &Name) -> bool {
        self.closure.made.contains(&Object::relation(table))
    }

    fn is_there(&self, object: &Object) -> bool {
        self.closure.made.contains(object) || self.existing.has(object)
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
