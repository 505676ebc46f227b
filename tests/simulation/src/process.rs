//! A process of a run: from its checkpoint on, the pipeline's windows into the sink, as `weir run` wires them; and those
//! that take a copy and bring it back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use weir_log::PartitionInUse;
use weir_schemas::{Closed, WindowStart};
use weir_sink::{
    Done, End, Left, RunSpec, SinkError, checkpoint_of, copy_on, gaps_of, restore_on, run_on,
    table::{Table, Windows},
    take_back_on,
};

use crate::{
    Bug,
    bugs::PlantedTable,
    control::Control,
    log::SimLog,
    plan::{Kind, Phase, Plan, Process, Role},
    reading::{Order, Reading},
    server::Server,
    table::SimVault,
};

/// Windows on their way from pipeline to sink, as in `weir run`.
const CLOSED_MAX: usize = 1;

/// What all processes of a history share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) log: Arc<SimLog>,
    pub(crate) server: Arc<Server>,
    pub(crate) bug: Option<Bug>,
}

/// One process, as the world has it.
pub(crate) struct Running {
    pub(crate) role: Role,
    pub(crate) control: Arc<Control>,
    /// Its pipeline, once it has begun, until it is over.
    pub(crate) reading: Arc<Mutex<Option<Reading>>>,
    queue: Arc<Queue>,
}

/// The table as a process has it: its own run's, and, for what a person orders, live's and the gap run's.
pub(crate) struct Tables {
    pub(crate) own: PlantedTable,
    pub(crate) taking: PlantedTable,
    pub(crate) taking_gap: PlantedTable,
}

/// Between its pipeline and its sink.
#[derive(Default)]
struct Queue {
    closed: Mutex<VecDeque<Closed>>,
    more: Notify,
}

impl Shared {
    /// A process reads the control topic to its end; from where live is to go on.
    fn control(&self, number: usize) -> Option<i64> {
        let mut state = self.server.state();
        let _ = state.reach(number, Kind::Control, Phase::Applied);
        state.live_first_ms
    }

    /// The partitions in use, by the control records that there are.
    fn partitions_in_use(&self) -> Vec<PartitionInUse> {
        let now_ms = self.server.state().now_ms();
        let announced = self.plan.partitions.iter().enumerate().filter(|(_, of)| of.announced_ms <= now_ms);
        announced
            .map(|(nth, of)| PartitionInUse { partition: nth as u32, effective_ms: of.effective_ms })
            // The bug: one that was added is waited for only once there is something in it.
            .filter(|in_use| {
                let added = in_use.effective_ms > self.plan.begin_ms;
                self.bug != Some(Bug::NewPartition) || !added || self.log.has_records(in_use.partition)
            })
            .collect()
    }
}

impl Running {
    pub(crate) fn new(role: Role) -> Running {
        Running {
            role,
            control: Arc::new(Control::new()),
            reading: Arc::new(Mutex::new(None)),
            queue: Arc::new(Queue::default()),
        }
    }

    /// Lets its pipeline go on, and hands its windows over; `Err` is what must never be.
    pub(crate) fn go_on(&self, now_ms: i64, shared: &Shared) -> Result<(), String> {
        if !self.control.is_up() {
            return Ok(());
        }
        let mut held = self.reading.lock().expect("no holder panics");
        let Some(reading) = held.as_mut() else { return Ok(()) };
        let before = reading.handed();
        let (mut windows, ended) = reading.go_on(now_ms)?;
        let through = reading.through();
        if shared.bug == Some(Bug::RowsByBatch) {
            crate::bugs::count_visitors_once_a_batch(&mut windows);
        }
        if through > before {
            windows.push(Closed::Through(through));
        }
        self.queue.closed.lock().expect("no holder panics").extend(windows);
        self.queue.more.notify_one();
        if let Some(ended) = ended {
            if ended.at_end {
                return Ok(());
            }
            if ended.for_good {
                return Err(format!("liveness: the run stopped for a person: {}", ended.said));
            }
            shared.server.state().happens("pipelines that failed");
            self.control.kill();
        }
        Ok(())
    }

    /// The life of one that copies or restores. Whatever fails, it ends: a copy is void, a restore is begun again.
    pub(crate) async fn serve(&self, shared: &Shared, vault: SimVault) {
        let work = async {
            match self.role {
                Role::Copy if copy_on(&vault).await.is_ok_and(|whole| whole) => {
                    shared.server.state().copied_whole(vault.id);
                }
                Role::Restore if restore_on(&vault).await.is_err() => shared.server.state().happens("restores cut"),
                _ => {}
            }
        };
        self.control.govern(work).await;
        self.control.kill();
    }

    /// The life of a run's: returns when it is over, however; `Err` is what must never be.
    pub(crate) async fn live(&self, shared: &Shared, nth: usize, number: usize, tables: Tables) -> Result<(), String> {
        let process = &shared.plan.processes[nth % shared.plan.processes.len()];
        let said = self.control.govern(self.work(shared, process, number, &tables)).await;
        self.control.kill();
        if let Some(reading) = self.reading.lock().expect("no holder panics").take() {
            for (what, times) in reading.seen().happened {
                *shared.server.state().happened.entry(what).or_insert(0) += times;
            }
        }
        said.unwrap_or(Ok(()))
    }

    /// What the process has to do, as the control topic and the table say; `None`: nothing, or it cannot be told now.
    async fn spec(&self, shared: &Shared, number: usize, table: &impl Table) -> Option<RunSpec> {
        let version = shared.plan.version.clone();
        let (run, origin) = (if self.role == Role::Gap { "gap" } else { "live" }.to_owned(), String::new());
        let live_first_ms = shared.control(number);
        if self.role == Role::Gap {
            let Windows { from, to } = gaps_of(table, version.width).await.ok()?.into_iter().next()?;
            return Some(RunSpec { run, version, origin, first: from, from, to: Some(to), left: Left::Own });
        }
        let first = shared.plan.first();
        let from = checkpoint_of(table, version.width, first).await.ok()?;
        let left = live_first_ms.map_or(Left::Passed, |at_ms| Left::To(version.width.window_of(at_ms)));
        Some(RunSpec { run, version, origin, first, from, to: None, left })
    }

    /// What a person has ordered is done before anything else, oldest first; `false`: not to its end.
    async fn repair(&self, shared: &Shared, number: usize, tables: &Tables) -> bool {
        let orders = if self.role == Role::Live { shared.server.state().orders() } else { Vec::new() };
        for (order, extent) in orders {
            let taken = take_back_on(&tables.taking, Some(&tables.taking_gap), shared.plan.version.width, extent).await;
            if taken.is_err() {
                shared.server.state().happens("orders cut");
                return false;
            }
            shared.control(number);
            shared.server.state().ordered(order);
        }
        true
    }

    async fn work(&self, shared: &Shared, process: &Process, number: usize, tables: &Tables) -> Result<(), String> {
        let (version, table) = (&shared.plan.version, &tables.own);
        // As `weir run`: where it cannot begin the process ends, and another is started.
        if !self.repair(shared, number, tables).await {
            return Ok(());
        }
        let Some(spec) = self.spec(shared, number, table).await else { return Ok(()) };
        let (from, to) = (spec.begins(), spec.to);
        let partitions = shared.partitions_in_use();
        let now_ms = shared.server.state().now_ms();
        let order = Order { version, from, to, partitions: partitions.clone(), process, now_ms, bug: shared.bug };
        let reading = Reading::start(shared.log.clone(), &order)?;
        *self.reading.lock().expect("no holder panics") = Some(reading);
        let (sender, closed) = mpsc::channel(CLOSED_MAX);
        let mut through = from;
        let taken = shared.server.state().taken();
        let on_done = |done: Done| {
            let mut state = shared.server.state();
            let seconds = |at: WindowStart| (at.ms() / 1_000) as u32;
            let known_s = match self.role {
                Role::Gap => state.complete_through_s(seconds(from)),
                _ => state.covered_through_s(seconds(shared.plan.first())),
            };
            if done.from > done.through || done.through < through {
                state.wrong.get_or_insert(format!("order: {done:?} after {through:?}"));
            }
            // What was taken back, or restored, between the record and its answer.
            if seconds(done.through) > known_s && state.taken() == taken {
                state.wrong.get_or_insert(format!("order: {done:?} was told, complete through {known_s} s"));
            }
            through = done.through;
        };
        let sink = run_on(table, spec, process.limits, closed, on_done, self.control.asked_to_end());
        tokio::select! {
            biased;
            ended = sink => match ended {
                Ok(ended) => {
                    if ended == End::Complete {
                        shared.server.state().happens("gaps filled");
                    }
                    Ok(())
                }
                Err(SinkError::Refused { .. }) => {
                    shared.server.state().happens("processes refused");
                    Ok(())
                }
                Err(SinkError::CheckpointMoved { .. }) => {
                    shared.server.state().happens("checkpoints moved back");
                    Ok(())
                }
                Err(error) => Err(format!("liveness: the sink stopped for a person: {error}")),
            },
            // Other partitions are in use: it must be started again.
            () = self.feed(shared, process, number, &partitions, sender) => {
                shared.server.state().happens("partitions added under a process");
                Ok(())
            }
        }
    }

    /// Hands windows to the sink, until the partitions in use are not those that the pipeline knows: the control topic
    /// is read to its end before a window leaves.
    async fn feed(
        &self,
        shared: &Shared,
        process: &Process,
        number: usize,
        partitions: &[PartitionInUse],
        sender: mpsc::Sender<Closed>,
    ) {
        loop {
            let next = self.queue.closed.lock().expect("no holder panics").pop_front();
            let Some(message) = next else {
                self.queue.more.notified().await;
                continue;
            };
            shared.control(number);
            if shared.bug != Some(Bug::NewPartition) && shared.partitions_in_use() != partitions {
                return;
            }
            if process.pace_ms > 0 {
                tokio::time::sleep(Duration::from_millis(process.pace_ms as u64)).await;
            }
            if sender.send(message).await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
