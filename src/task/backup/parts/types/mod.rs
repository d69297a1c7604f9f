//! The types of columns, of a set and of the living database. Rows of a set are text of the types that the set's columns had: a column of another type
//! takes most of them without a word, and reads something else.

mod decide;
mod living;
mod of_set;
mod shape;

use anyhow::Result;
use decide::{Types, changed};
use of_set::OfSet;
pub use shape::Shape;
use sqlx::postgres::PgConnection;

use super::definitions::Item;
use super::names::Name;
use crate::base::fault::{Fault, Kind};

/// Refuses living tables whose columns have other types than those in the set, except where each value stays as it is and equal to the same ones.
/// Returns the tables as they are now. `connection` has an empty search_path.
pub async fn refuse_changed(
    connection: &mut PgConnection,
    items: &[Item],
    tables: impl IntoIterator<Item = &Name>,
) -> Result<Vec<Shape>> {
    let of_set = OfSet::new(items);
    let mut shapes = Vec::new();
    for table in tables {
        shapes.push(Shape::of(connection, table).await?);
        let columns = of_set.columns(table);
        let here = living::columns(connection, table).await?;
        let pairs = columns.into_iter().filter_map(|(name, old)| {
            let (_, new) = here.iter().find(|(here, _)| *here == name)?;
            Some((name, old, new.clone()))
        });
        refuse(connection, &of_set.types, table, &pairs.collect::<Vec<_>>()).await?;
    }
    Ok(shapes)
}

/// Refuses tables of the set whose columns use living types that are made of other ones than in the set. The tables themselves do not live.
pub async fn refuse_others(connection: &mut PgConnection, items: &[Item], tables: impl IntoIterator<Item = &Name>) -> Result<()> {
    let of_set = OfSet::new(items);
    for table in tables {
        let columns = of_set.columns(table).into_iter();
        let pairs: Vec<_> = columns.map(|(name, of_type)| (name, of_type.clone(), of_type)).collect();
        refuse(connection, &of_set.types, table, &pairs).await?;
    }
    Ok(())
}

/// `pairs`: the name of each column, its type in the set, and that which its values get here.
async fn refuse(connection: &mut PgConnection, of_set: &Types, table: &Name, pairs: &[(String, String, String)]) -> Result<()> {
    let texts = pairs.iter().flat_map(|(_, old, new)| [old.as_str(), new.as_str()]);
    let here = living::types(connection, of_set, texts).await?;
    for (column, old, new) in pairs {
        if let Some(change) = changed(old, new, of_set, &here) {
            let way = match old == new {
                // The part would make the type, were it not there.
                true => {
                    "give the type that is there another name (ALTER TYPE … RENAME TO …), so that the restore makes that of the set"
                }
                false => "restore the table beside with --as, and convert its rows by hand",
            };
            let message = format!(
                "{table}.{column}: {change}. The rows of the set are text of its own types, and another type may read other values out of it: {way}"
            );
            return Err(Fault::new(Kind::Configuration, message).into());
        }
    }
    Ok(())
}
