//! Reads what EXPLAIN says: pure.

use serde_json::Value;

/// Returns the number of pages that a plan read, from memory or disk.
pub fn pages_of(plan: &Value) -> f64 {
    ["Shared Hit Blocks", "Shared Read Blocks", "Local Hit Blocks", "Local Read Blocks"]
        .iter()
        .filter_map(|key| plan[*key].as_f64())
        .sum()
}

fn nodes(plan: &Value) -> Vec<&Value> {
    let mut open = vec![plan];
    let mut all = Vec::new();
    while let Some(node) = open.pop() {
        all.push(node);
        open.extend(node["Plans"].as_array().into_iter().flatten());
    }
    all
}

pub fn node_with_index<'a>(plan: &'a Value, index: &str) -> Option<&'a Value> {
    nodes(plan).into_iter().find(|node| node["Index Name"].as_str() == Some(index))
}

/// Returns the scan that reads the table: an index's name, or the kind of another scan.
pub fn scan_of(plan: &Value) -> Option<String> {
    let node = nodes(plan).into_iter().find(|node| node["Alias"].as_str() == Some("t"))?;
    Some(node["Index Name"].as_str().or(node["Node Type"].as_str())?.to_owned())
}
