//! The plan as people and machines read it.

use std::fmt;

use serde::Serialize;
use serde_json::json;

use super::decide::{Action, Index};
use super::function::Function;
use super::kind::Method;
use super::plan::{Part, Plan};
use super::state::{Found, LeftoverKind};
use super::verdict::way_of_all;
use crate::base::units;

impl Part {
    fn lines(&self) -> Vec<String> {
        let table = &self.table;
        let looks = &table.looks;
        let mut lines = Vec::new();
        lines.push(format!(
            "about {}, {}; {} by {}; in a sample of {}: {} NULL, {} zero vectors, {} distinct",
            units::plural(table.facts.rows as i64, "row"),
            units::bytes(table.facts.bytes.max(0) as u64),
            units::plural(table.dimensions, "dimension"),
            table.metric.name(),
            units::count(looks.looked_at as u64),
            looks.nulls,
            looks.without_direction,
            units::count(looks.distinct_values as u64),
        ));
        match (&table.index, &self.current.index) {
            (Some(index), Some(current)) => lines.extend(self.index_lines(index, current)),
            _ => lines.push(format!("no index; an exact search takes {:.1} ms", self.current.exact_ms)),
        }
        if !table.competing_indexes.is_empty() {
            lines.push(format!(
                "other indexes answer the same searches, and the planner may prefer them: {}",
                table.competing_indexes.join(", ")
            ));
        }
        lines.extend(table.others.iter().map(|(name, on)| format!("index {name}, which is {on}, is left alone")));
        for leftover in &table.leftovers {
            let what = match leftover.what {
                LeftoverKind::Broken => "left by an interrupted build: dropped first",
                LeftoverKind::Built => "built by an interrupted run: measured, then swapped in or dropped",
                LeftoverKind::Replaced => "replaced by an interrupted run: dropped first",
            };
            lines.push(format!("index {} ({}) is {what}", leftover.name, units::bytes(leftover.bytes.max(0) as u64)));
        }
        if self.sample.is_asked {
            lines.push(self.sample.source.in_words());
        }
        lines.extend(self.warnings.iter().map(|warning| format!("WARNING: {warning}")));
        lines.push(format!("-> {}", self.in_words()));
        lines.extend(self.decision.reasons.iter().map(|reason| format!("   because {reason}")));
        if let Some(memory) = &self.memory {
            lines.push(format!(
                "   memory: about {} of {} (maintenance_work_mem), {}; index and WAL: about {} each",
                units::bytes(memory.needed_bytes),
                units::bytes(memory.maintenance_work_mem_bytes),
                units::plural(memory.parallel_workers as usize, "parallel worker"),
                units::bytes(table.index_bytes()),
            ));
            lines.extend(memory.notes.iter().chain(&memory.refusal).map(|note| format!("   {note}")));
        }
        if table.by_bits {
            let statement = Function::of(table).statement(self.k);
            lines.push(format!("   the index is on the signs of the values: the application has to search by {statement}"));
        }
        if table.is_cast {
            let value = if table.by_halfvec { "halfvec" } else { "a cast of the column" };
            lines.push(format!("   the index is on {value}: the application has to use ORDER BY {}", table.order_by()));
        }
        lines
    }

    fn index_lines(&self, index: &Found, current: &Index) -> Vec<String> {
        let mut parameters = match current.method {
            Some(Method::Ivfflat) => match (current.lists_in_catalog, current.lists_in_fact) {
                (Some(catalog), Some(fact)) if catalog != fact => format!("{fact} lists ({catalog} in the catalog)"),
                (Some(catalog), None) => format!("{catalog} lists in the catalog"),
                (_, fact) => format!("{} lists", fact.unwrap_or_default()),
            },
            _ => {
                let in_catalog = [index.option("m").unwrap_or(16), index.option("ef_construction").unwrap_or(64)];
                let differs = in_catalog != [current.m, current.ef_construction];
                let catalog =
                    if differs { format!(" ({} and {} in the catalog)", in_catalog[0], in_catalog[1]) } else { String::new() };
                format!("m = {}, ef_construction = {}{catalog}", current.m, current.ef_construction)
            }
        };
        parameters += &format!(", {}, {}", index.operator_class, units::bytes(index.bytes.max(0) as u64));
        parameters += &match index.built().and_then(|built| Some((built.built_at?, built.rows))) {
            Some((at, rows)) => format!(", built {} with {}", at.format("%Y-%m-%d"), units::plural(rows, "vector")),
            None => ", of unknown age".to_owned(),
        };
        let mut lines = vec![format!(
            "index {}: {} with {parameters}{}",
            index.name,
            index.method,
            if index.is_valid { "" } else { ", INVALID" }
        )];
        lines.extend(index.predicate.as_ref().map(|predicate| format!("  it holds only the rows WHERE {predicate}")));
        let setting = current.method.map_or("", Method::setting);
        for (what, found) in [("now", current.now.as_ref()), ("least", current.least.as_ref().map(|(_, least)| least))] {
            let Some(found) = found else { continue };
            let cost =
                found.cost.map_or(String::new(), |cost| format!(", {:.2} ms and {:.0} pages a search", cost.ms, cost.pages));
            let from = units::plural(found.queries, "query vector");
            lines.push(format!(
                "  {what}: {setting} = {}: recall {:.3} ± {:.3} (95 %, {from}){cost}",
                found.setting, found.recall, found.margin
            ));
        }
        if let Some(skew) = current.skew {
            lines.push(format!("  lists: a search of one reads up to {skew:.1} times the pages of an average one"));
        }
        match &self.planners_choice {
            Some(choice) if *choice != index.name => {
                lines.push(format!("  the planner uses {choice} instead of this index for ORDER BY {}", self.table.order_by()));
            }
            _ => {}
        }
        lines.push(format!("  an exact search takes {:.1} ms", self.current.exact_ms));
        lines.extend(self.others.in_words(self.request.method.setting()).into_iter().map(|line| format!("  {line}")));
        lines.extend(
            self.filtered
                .iter()
                .flat_map(|verdict| verdict.lines(current.method.unwrap_or(self.request.method), self.request.target))
                .map(|line| format!("  {line}")),
        );
        lines.extend(self.way_line(current.method.unwrap_or(self.request.method)).map(|line| format!("  {line}")));
        lines
    }

    /// Says what the filters need, and who sets it.
    fn way_line(&self, method: Method) -> Option<String> {
        let way = way_of_all(&self.filtered, self.request.target)?;
        let who = match self.request.sets_the_setting {
            true => "the run sets it (apply_setting)",
            false => "the application has to set it (apply_setting would)",
        };
        let trap = way.trap().map(|trap| format!("; {trap}")).unwrap_or_default();
        Some(format!("searches with a filter reach {} with {}: {who}{trap}", self.request.target, way.in_words(method)))
    }

    fn in_words(&self) -> String {
        let name = &self.table.index_name;
        let beside =
            if self.table.index.is_some() { " beside the present one, measure it, swap them" } else { ", measure it, keep it" };
        match &self.decision.action {
            Action::Nothing => "nothing to do".to_owned(),
            Action::Set { setting } if self.request.sets_the_setting => {
                format!("set {} = {setting}", self.request.method.setting())
            }
            Action::Set { setting } => {
                format!("advise {} = {setting} (apply_setting would set it)", self.request.method.setting())
            }
            Action::Tune if self.table.method == Method::Hnsw => format!("try graphs on a copy, then build {name}{beside}"),
            Action::Tune => {
                let hnsw = if self.table.operator_class_of_hnsw.is_some() { " and hnsw" } else { "" };
                format!("try numbers of lists{hnsw} on a copy, then build {name}{beside}")
            }
            Action::Build { spec } => format!("build {name} as {spec}{beside}"),
            Action::GiveUp => "nothing that the job allows reaches the target".to_owned(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        let current = self.current.index.as_ref();
        json!({
            "table": self.table.sql(),
            "index": self.table.index.as_ref().map(|index| &index.name),
            "predicate": self.table.searched.predicate,
            "rows": self.table.facts.rows,
            "dimensions": self.table.dimensions,
            "looks": self.table.looks,
            "lists_in_catalog": current.and_then(|index| index.lists_in_catalog),
            "lists_in_fact": current.and_then(|index| index.lists_in_fact),
            "skew": current.and_then(|index| index.skew),
            "setting": self.setting,
            "now": current.and_then(|index| index.now.clone()),
            "least": current.and_then(|index| index.least.clone()).map(|(reached, found)| json!({ "reached": reached, "found": found })),
            "exact_ms": self.current.exact_ms,
            "planners_choice": self.planners_choice,
            "leftovers": self.table.leftovers,
            "decision": self.decision,
            "memory": self.memory,
            "sample": self.sample.tids,
            "queries": self.sample.source,
            "filters": self.filtered,
            "warnings": self.warnings,
        })
    }
}

impl Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({ "tables": self.parts.iter().map(Part::json).collect::<Vec<_>>() }).serialize(serializer)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.parts.is_empty() {
            writeln!(f, "The table is partitioned and has no partition.")?;
        }
        for part in &self.parts {
            writeln!(f, "{} {}", part.table.sql(), part.table.searched.column)?;
            for line in part.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        if self.is_partitioned {
            writeln!(f, "Partitions are handled one by one; a partition added later gets its index in the next run.")?;
        }
        Ok(())
    }
}
