//! Connections that were used once and then lie idle: what they cost a target in memory is worth knowing.

use std::rc::Rc;

use super::connection::{KeepAliveConnection, SharedReadBuffer};
use super::request_mix::RequestMix;
use super::target::ResolvedTarget;
use super::{LoadError, LoadPlan, runtime};

/// Open until dropped.
pub struct IdleConnections {
    /// Its driver must live as long as the sockets that are registered with it.
    _runtime: tokio::runtime::Runtime,
    connections: Vec<KeepAliveConnection>,
}

impl IdleConnections {
    /// Opens the plan's connections to its first target, with one call of the mix on each.
    pub fn open(plan: &LoadPlan) -> Result<Self, LoadError> {
        plan.check()?;
        let runtime = runtime()?;
        let connections = runtime.block_on(connect(plan))?;
        Ok(Self { _runtime: runtime, connections })
    }

    pub fn count(&self) -> usize {
        self.connections.len()
    }
}

async fn connect(plan: &LoadPlan) -> Result<Vec<KeepAliveConnection>, LoadError> {
    let url = &plan.targets[0];
    let unreachable = |why: String| LoadError::Unreachable { target: url.clone(), why };
    let target = ResolvedTarget::find(url, plan.trust.as_ref()).await?;
    let accounts: Rc<[String]> = plan.accounts.as_slice().into();
    let request_mix = RequestMix::new(plan, &target, plan.keys.first(), accounts)?;
    let read_buffer = SharedReadBuffer::new();
    let mut request = Vec::new();
    let mut connections = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let template = request_mix.next_request(number as u64, &mut request);
        let mut connection = KeepAliveConnection::open(&target).await.map_err(unreachable)?;
        let exchange = connection.exchange(&request, template.is_head, &read_buffer, |_| {});
        exchange.await.map_err(|broken| unreachable(format!("connection {number}: {}", broken.why)))?;
        connections.push(connection);
    }
    Ok(connections)
}
