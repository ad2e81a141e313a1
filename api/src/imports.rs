//! How many imports this process has under way at a time: each keeps the numbers it has met in memory and the database busy.
//! A process that is to stop ends them after the batch they are at; what is stored then need not be sent again.

use shared::{domain::ids::TenantId, lifecycle::Lifecycle};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

const AT_ONCE: usize = 4;
/// So that a tenant that sends slowly leaves room for the others.
const OF_ONE_TENANT: usize = 2;

/// The imports under way. Cheap to clone.
#[derive(Clone)]
pub struct Imports {
    under_way: Arc<Mutex<HashMap<TenantId, usize>>>,
    life: Lifecycle,
}

/// The right to import, given back when dropped.
pub struct Turn {
    imports: Imports,
    tenant_id: TenantId,
}

impl Imports {
    /// Of a process that lives so long.
    pub fn new(life: Lifecycle) -> Self {
        Self { under_way: Arc::default(), life }
    }

    /// A turn for a tenant; `None` if it, or all together, have as many as they may.
    pub fn begin(&self, tenant_id: TenantId) -> Option<Turn> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, its) = (under_way.values().sum::<usize>(), under_way.get(&tenant_id).copied().unwrap_or_default());
        if all >= AT_ONCE || its >= OF_ONE_TENANT {
            return None;
        }
        under_way.insert(tenant_id, its + 1);
        Some(Turn { imports: self.clone(), tenant_id })
    }
}

impl Turn {
    /// Waits until the process is to stop.
    pub async fn stopping(&self) {
        self.imports.life.stopping().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.imports.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let left = under_way.get(&self.tenant_id).map_or(0, |its| its - 1);
        if left == 0 {
            under_way.remove(&self.tenant_id);
        } else {
            under_way.insert(self.tenant_id, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_tenant_leaves_room_for_the_others_and_all_have_an_end() {
        let imports = Imports::new(Lifecycle::new(Duration::ZERO));
        let (one, other) = (TenantId::new(), TenantId::new());
        let mut turns: Vec<Turn> = (0..OF_ONE_TENANT).map(|_| imports.begin(one).unwrap()).collect();
        assert!(imports.begin(one).is_none());
        turns.push(imports.begin(other).unwrap());
        turns.extend((turns.len()..AT_ONCE).map(|_| imports.begin(TenantId::new()).unwrap()));
        assert!(imports.begin(other).is_none());
        assert!(imports.begin(TenantId::new()).is_none());
        drop(turns);
        assert!(imports.begin(one).is_some());
        // Each turn has been given back by now.
        assert!(imports.under_way.lock().unwrap().is_empty(), "nothing is kept of tenants that import nothing");
    }
}
