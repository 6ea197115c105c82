#!/usr/bin/env bash
# Puts one fault at a time into a copy of the tree, and runs the model that must find it: crates/core/mutants.sh [MODEL…]
# Run it by hand after a change to a model or to the tree. It prints each mutant that no longer applies, or that its model misses,
# and then fails.
set -uo pipefail
cd "$(dirname "$0")/../.."
target=$PWD/target/loom copy=$PWD/target/mutants
rm -rf "$copy" && mkdir -p "$copy" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy" || exit 2
cd "$copy/crates/core" || exit 2
wanted=("$@") missed=0

run() { # run MODEL
  RUSTFLAGS="--cfg throughline_loom" CARGO_INCREMENTAL=1 timeout 600 cargo test -q --release --features tokio-util --lib \
    --config profile.release.debug-assertions=true --config 'profile.release.package.throughline-core.opt-level=0' \
    --target-dir "$target" "models::exhaustive::$1" >output 2>&1
}
# A model that fails without a fault shows nothing.
run wake::waiter_drop_against_wake || { cat output; exit 2; }

mutant() { # mutant MODEL FILE SUBSTITUTION: FILE is below src/context; Perl's substitution sees the whole file
  local model=$1 file=src/context/$2 change=$3 result=0
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $model "* ]]; then return 0; fi
  cp "$file" original
  perl -0pi -e "$change" "$file"
  if cmp -s "$file" original; then
    echo "$model: DOES NOT APPLY: $change"
    missed=1
  else
    run "$model" || result=$?
    if grep -q "could not compile" output; then
      echo "$model: DOES NOT COMPILE: $change"
      missed=1
    elif [ "$result" = 0 ] || [ "$result" = 124 ] || ! grep -qE 'panicked at|signal: ' output; then
      echo "$model: MISSES $change"
      missed=1
    else
      echo "$model: finds $change ($(grep -m 1 -oE 'panicked at .*|signal: .*' output))"
    fi
  fi
  # Not mv: the new modification time makes cargo build the file again.
  cat original >"$file"
}

mutant wake::link_against_cancel tree/wait.rs 's/return target\.error\(\)\.map_or\(Poll::Pending, Poll::Ready\)/return Poll::Pending/'
mutant wake::two_linkers tree/links.rs 's/unsafe \{ up\.lock\(\)\.link\(/let _own = node.lock(); $&/'
mutant wake::two_linkers tree/links.rs 's/(link\(&node\.link, node\) \};\n +\})/$1 else { return }/'
mutant wake::waiter_drop_against_wake tree/wait.rs 's/anchor\.lock\(\)\.waiters\.leave\(&self\.entry\)/None::<Waker>/'
mutant wake::changed_waker_against_wake tree/waiters.rs 's/(let before = entry\.waker)/if entry.is_queued.get() { return Some(waker) } $1/'
mutant wake::observer_against_wake tree/links.rs 's/link\.owner\.load\(Ordering::Relaxed\)\.as_ref\(\) \}/$&.filter(|child| child.node.final_state().is_null())/'
mutant wake::observer_against_wake tree/wait.rs 's/if let Some\(error\) = target\.error\(\)/$&.filter(|_| self.entry.is_notified())/'
mutant wake::blocked_thread_against_cancel blocking.rs 's/loop \{/loop { thread::park();/'
mutant wake::blocked_thread_against_cancel tree/wait.rs 's/return target\.error\(\)\.map_or\(Poll::Pending, Poll::Ready\)/return Poll::Pending/'
mutant cancel::two_cancels_and_an_observer tree/cancel.rs 's/(this\.node\.set_cause\(cause\);)\s+(this\.node\.flag\(\);)/$2 $1/'
mutant cancel::cancels_of_parent_and_child tree/cancel.rs 's/let mut lists = node\.lock\(\);/$& let _above = node.node.up().map(|up| up.lock());/'
mutant cancel::an_observer_latches_from_the_top_down tree/observe.rs 's/Some\(above\) => Some\(/Some(above) if !ptr::eq(node, self) => Some(node.below_done(above)), $&/'
mutant cancel::birth_under_a_cancelling_parent tree/wait.rs 's/return target\.error\(\)\.map_or\(Poll::Pending, Poll::Ready\)/return Poll::Pending/'
mutant cancel::birth_below_an_expired_deadline tree/birth.rs 's/node\.final_state\(\)\)/ptr::null_mut())/'
mutant time::earliest_event_wins tree/observe.rs 's/if is_late \|\| self\.is_flagged\(\) \{ self\.resolve\(now\) \} else \{ None \}/let _ = is_late; self.resolve(now)/; s/(while let Some\(node\) = path\.pop\(\) \{\n)/let now = self.deadline.map(|_| clock::now()).or(now);\n$1/'
mutant time::earliest_event_wins tree/cancel.rs 's/this\.node\.set_cause\(cause\);/this.stamp(); $&/'
mutant time::earliest_event_wins tree/cancel.rs 's/fence\(Ordering::SeqCst\);//'
mutant time::own_deadline_against_cancel tree/observe.rs 's/Some\(deadline\) if self\.cancelled_after\(deadline\) => self\.timed_out\(\),//'
mutant time::own_deadline_against_cancel tree/cancel.rs 's/this\.node\.deadline\.is_some\(\) \|\|//'
mutant time::deadline_set_under_a_cancelling_parent tree/birth.rs 's/fence\(Ordering::SeqCst\);//'
mutant time::deadline_set_under_a_cancelling_parent tree/birth.rs 's/mark_timed\(this\.node\(\)\.up\(\)\);//'
mutant time::two_deadlines_under_a_cancelling_grandparent tree/birth.rs 's/node\.timed_below\.store\(true, Ordering::SeqCst\);/$& node.timed_fenced.store(true, Ordering::Release);/'
mutant time::alarm_against_poll tree/wait.rs 's/Some\(alarm\) => alarm\.rearm\(cx\)/Some(_) => {}/'
mutant time::blocked_thread_against_deadline tree/wait.rs 's/this\.alarm = Some\(Alarm::new\(deadline, is_virtual, cx\)\);//'
mutant merge::merge_against_cancel_of_the_second tree/merge.rs 's/(fence\(Ordering::SeqCst\);)\n +self\.latch_second\(\);/$1/'
mutant merge::both_parents_are_cancelled tree/cancel.rs 's/if this\.merged_below\.load\(Ordering::SeqCst\)/if false/'
mutant merge::merge_drop_against_cancel tree/count.rs 's/while count != 0/while true/'
mutant merge::deadline_of_the_second_against_cancel_of_the_first tree/merge.rs 's/mark_timed\(self\.node\.node\.up\(\)\);//'
mutant lifetime::sole_owner tree/count.rs 's/(linked && node\.refs\.load)\(Ordering::Acquire\)/$1(Ordering::Relaxed)/'
mutant lifetime::sole_owner tree/count.rs 's/fetch_sub\(1, Ordering::Release\)/fetch_sub(1, Ordering::Relaxed)/'
mutant lifetime::sole_owner tree/count.rs 's/fence\(Ordering::Acquire\);//'
mutant lifetime::last_child_frees_its_parent tree/count.rs 's/fetch_sub\(1, Ordering::Release\)/fetch_sub(1, Ordering::Relaxed)/'
mutant lifetime::linked_child_drop_against_cancel tree/links.rs 's/unsafe \{ up\.lock\(\)\.unlink\(&self\.link\) \};//'
mutant lifetime::linked_child_drop_against_cancel tree/count.rs 's/\(!linked && /(/'
mutant lifetime::two_linked_siblings_drop tree/links.rs 's/unsafe \{ up\.lock\(\)\.unlink\(&self\.link\) \};/let lists = ptr::from_mut::<Lists>(&mut up.lock()); unsafe { (*lists).unlink(&self.link) };/'
mutant lifetime::handle_drop_against_wait tree/count.rs 's/self\.node\(\)\.refs\.load\(Ordering::Acquire\) == 1/self.node().refs.load(Ordering::Acquire) <= 2/'
mutant hook::stop_against_fire hook.rs 's/(pub fn stop.*?)let f = (lock\(&self\.hook\.f\))\.take\(\);(.*?)\n        f\.is_some\(\)\n/$1let was = $2.is_some(); let f = $2.take();$3\n        was\n/s'
mutant hook::registration_against_cancel hook.rs 's/self\.wakes\.fetch_sub\(seen, Ordering::AcqRel\) == seen/self.wakes.fetch_sub(seen, Ordering::AcqRel) >= seen/'
mutant shield::shield_against_cancel shield.rs 's/target\.cancel\(cause\);/drop((target, cause.clone()));/'
mutant shield::shield_against_cancel shield.rs 's/Ref::without_cancel\(parent\)/parent.clone()/'
mutant shield::shield_drop_against_cancel shield.rs 's/waiting\.stop\(\);/drop(waiting);/'
mutant shield::end_of_grace_against_poll tree/wait.rs 's/return target\.error\(\)\.map_or\(Poll::Pending, Poll::Ready\)/return Poll::Pending/'
exit "$missed"
