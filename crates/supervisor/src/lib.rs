//! Supervision of background tasks: a task that panics is restarted with backoff, counted, and reported while
//! it is down.
//!
//! The state of a task is its [`Work`], which survives a panic: a queue keeps its entries, a listener its
//! socket. The local variables of a run are dropped with it.

#[cfg(feature = "sabotage")]
pub mod sabotage;
mod task;

use std::sync::{Arc, Mutex, PoisonError};

pub use task::{HEALTHY_AFTER, RESTART_PAUSE_MAX, RESTART_PAUSE_MIN, Task, Work};

/// The background tasks of one part of a program, in the order of their registration.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: Mutex<Vec<Arc<Task>>>,
}

impl Supervisor {
    /// Registers a task, or returns the registered one with this name.
    pub fn task(&self, name: &'static str) -> Arc<Task> {
        self.register(name, false)
    }

    /// As [`Supervisor::task`], for a task without which the program cannot serve requests.
    pub fn essential_task(&self, name: &'static str) -> Arc<Task> {
        self.register(name, true)
    }

    fn register(&self, name: &'static str, is_essential: bool) -> Arc<Task> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = tasks.iter().find(|task| task.name() == name) {
            return task.clone();
        }
        let task = Arc::new(Task::new(name, is_essential));
        tasks.push(task.clone());
        task
    }

    /// All registered tasks.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
