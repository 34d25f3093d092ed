//! Connections that were used once and then lie idle: what they cost a target in memory is worth knowing.

use std::rc::Rc;

use super::connection::{Connection, Scratch};
use super::deck::Deck;
use super::target::Target;
use super::{LoadError, Plan, runtime};

/// Open until dropped.
pub struct Idle {
    /// Its driver must live as long as the sockets that are registered with it.
    _runtime: tokio::runtime::Runtime,
    connections: Vec<Connection>,
}

impl Idle {
    /// Opens the plan's connections to its first target, with one call of the mix on each.
    pub fn open(plan: &Plan) -> Result<Self, LoadError> {
        plan.check()?;
        let runtime = runtime()?;
        let connections = runtime.block_on(connect(plan))?;
        Ok(Self { _runtime: runtime, connections })
    }

    pub fn count(&self) -> usize {
        self.connections.len()
    }
}

async fn connect(plan: &Plan) -> Result<Vec<Connection>, LoadError> {
    let url = &plan.targets[0];
    let unreachable = |why: String| LoadError::Unreachable { target: url.clone(), why };
    let target = Target::find(url, plan.trust.as_ref()).await?;
    let accounts: Rc<[String]> = plan.accounts.as_slice().into();
    let deck = Deck::new(plan, &target, plan.keys.first(), accounts)?;
    let scratch = Scratch::new();
    let mut request = Vec::new();
    let mut connections = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let card = deck.deal(number as u64, &mut request);
        let mut connection = Connection::open(&target).await.map_err(unreachable)?;
        let exchange = connection.exchange(&request, card.to_head, &scratch, |_| {});
        exchange.await.map_err(|broken| unreachable(format!("connection {number}: {}", broken.why)))?;
        connections.push(connection);
    }
    Ok(connections)
}
