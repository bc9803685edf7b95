"""The training loop."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cairn.errors import StageError
from cairn.lineage.artifact import readable, written_aside
from cairn.progress import progress
from trainer.batches import Batches
from trainer.beginning import weights
from trainer.cache import Stored
from trainer.checkpoint import save_weights, weights_of
from trainer.evaluate import CutShortError, Development
from trainer.fence import Fence
from trainer.guard import Guard, report, rows_to_blame
from trainer.heart import Heart
from trainer.kept import check_kept, fetch, hand_over_kept, keep_state, send
from trainer.loader import Loader
from trainer.loss import Examples, loss, totals
from trainer.manifest import FORMAT
from trainer.masked_loss import masked_losses
from trainer.metrics import NoBoard, Speed, TrainingLog, board, by_domain, is_logged, means
from trainer.model import Transformer
from trainer.optim import Optimizers, clip
from trainer.order import told
from trainer.parallel import Parallel, TreeSum
from trainer.place import Place
from trainer.profiler import NoProfiler, Profiler
from trainer.progress import InProgress
from trainer.recipe import Training
from trainer.rendezvous import client, join
from trainer.schedule import rate
from trainer.spread import exchange, fill, gathered, let_go
from trainer.stop import Stop
from trainer.tokens import Tokens


@dataclass(frozen=True)
class Run:
    """What the launcher asks of the trainer; written to a file that every process reads."""

    training: Training
    tokens: Path | Stored
    work: Path
    checkpoints: str
    """The folder or URL that checkpoints in progress lie below."""
    checkpoint: Path
    optimizer: Path
    board: Path | None
    """Where W&B keeps its own folder, `wandb`; None sends nothing."""
    name: str
    until: int | None
    """Stop after this step, with a checkpoint in progress; None trains to the last."""
    grace: float
    """Seconds from being asked to end to the end of the process."""
    hang_after: float
    """Seconds without progress that are a hang."""
    join_within: float
    """Seconds until all processes must have come."""
    profile: tuple[int, int] | None = None
    """Steps that are traced, from the first up to the second."""
    profiles: Path = Path(".cairn/profile")
    """Where traces go: outside the work folder, which goes when the stage is done."""

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read the launcher's file."""
        said = json.loads(path.read_text())
        training = Training.model_validate_json(json.dumps(said.pop("training")))
        for name in ("work", "checkpoint", "optimizer", "board", "profiles"):
            said[name] = said[name] and Path(said[name])
        tokens = said.pop("tokens")
        return cls(training=training, tokens=Path(tokens) if isinstance(tokens, str) else Stored(**tokens), **said)


class Trainer:
    """One run. `fit` ends with the finished artifacts, or, when it was asked to stop, with a checkpoint in progress."""

    def __init__(self, run: Run, stop: Stop) -> None:
        self.run = run
        self.stop = stop
        self.recipe = recipe = run.training
        torch.set_num_threads(recipe.threads)
        torch.set_flush_denormal(True)
        # Filling fresh memory costs a pass over it, and nothing here reads what it did not write.
        torch.use_deterministic_algorithms(recipe.mode == "strict")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.tokens = Tokens.open(run.tokens)
        self.vocabulary = self.tokens.vocabulary
        join(run.join_within)
        self.parallel = Parallel(recipe.mode == "strict", recipe.layout)
        rank, size = self.parallel.rank, self.parallel.size
        store = client(run.hang_after / 4) if size > 1 else None
        stacks = run.work / "logs" / f"stacks-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self.heart = Heart(rank, size, run.hang_after, stacks, store).start()
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        with self.parallel.built_on:
            self.model = Transformer(recipe.model, self.tokens.vocab_size, dtype)
        self.parallel.apply(self.model, recipe)
        drawn = self.model.drawn(recipe.seed)
        fill(self.model, weights(recipe.init_from, recipe.model) if recipe.init_from else drawn)
        self.optimizers = Optimizers(recipe.optimizer, self.model)
        self.guard = Guard(recipe.skip, self.parallel.device)
        self.batches = Batches(recipe, self.tokens)
        self.loader = Loader(self.batches, recipe, self.parallel)
        self.parameters = list(self.model.parameters())
        self.first = self.parallel.rank == 0
        self.unfinished: dict[str, Any] | None = None
        """The log line of a step whose evaluation was cut short."""
        self.kept: dict[str, str] = {}
        """sha256 of the states that were kept, by step."""
        made_for = {"pretrain": recipe.model_dump(mode="json"), "tokens": self.tokens.manifest}
        place = Place(f"{run.checkpoints}/checkpoints")
        # Whoever comes last has the place; an earlier trainer, of whatever machine, finds that out and ends.
        self.still_ours = Fence(run.checkpoints).check if self.first else lambda: None
        self.checkpoints = InProgress(place, made_for, recipe.keep_last, rank, size, self.still_ours)
        self.elsewhere = None if run.checkpoints == str(run.work) else Place(f"{run.checkpoints}/kept")
        """Where kept states go too when the work folder may be lost."""
        self.step, self.logged = self._resume()
        self.resumed_at = self.step
        if self.first:
            for line in told(self.batches.order.drawn(recipe.steps)):
                print(f"pretrain: {line}", flush=True)

    def fit(self) -> bool:
        """Train to the last step and write the artifacts, or as far as was asked; False when told to stop before."""
        recipe, run = self.recipe, self.run
        until = min(run.until or recipe.steps, recipe.steps)
        # Where the model is spread it takes all processes to use it.
        self.development = self._development() if self.first or self.parallel.mesh else None
        log = TrainingLog(run.work / "training.jsonl", self.logged) if self.first else None
        speed = Speed(run.work / "speed.jsonl", recipe, self.tokens.vocab_size, self.parallel.size)
        profiler = self._profiler()
        config = {**recipe.model_dump(mode="json"), "processes": self.parallel.size}
        sent = board(run.board, run.name, config, self.step) if self.first and run.board else NoBoard()
        try:
            with progress("pretrain", until, "steps", self.step, shown=self.first) as shown:
                while self.step < until or self.unfinished:
                    self.checkpoints.check()
                    profiler.before(self.step)
                    line = self.unfinished or self._train_step(speed)
                    last = self.step == recipe.steps
                    if line is None or (
                        (last or self.step % recipe.evaluate_every == 0) and not self._evaluate(line, speed)
                    ):
                        self._keep(log)
                        self.checkpoints.wait()
                        return False
                    if log and (last or self.step % recipe.evaluate_every == 0 or self.step % recipe.log_every == 0):
                        log.write(line)
                        pace = speed.line(self.step)
                        sent.log({**line, **pace}, self.step)
                    shown.advance(1, f"loss {line['loss']:.3f}, {speed.now()}")
                    if not last and recipe.keep_every and self.step % recipe.keep_every == 0:
                        self._keep_for_good(log)
                    if not last and self.step % recipe.checkpoint_every == 0:
                        self._keep(log)
        finally:
            profiler.close()
            self.loader.close()
            sent.finish()
        if self.step < recipe.steps:
            self._keep(log)
        self.checkpoints.wait()
        self.heart.at("end", self.step - 1)
        if self.step < recipe.steps:
            if self.first:
                self._tell("reached", speed.summary())
        else:
            state = gathered(self.state(), keep=self.first)
            if self.first:
                self.still_ours()  # when this run is done, its checkpoints go
                self._finish(state)
                self._tell("done", speed.summary())
        return True

    def _train_step(self, speed: Speed) -> dict[str, Any] | None:
        """One optimizer step: the log line of the step, or None when some process was asked to stop."""
        recipe, parallel = self.recipe, self.parallel
        batch = recipe.batch_at(self.step)
        self.heart.at("data", self.step)
        began = time.monotonic()
        rows = self.loader.take(self.step)
        speed.count(batch * recipe.model.context, time.monotonic() - began)
        self.heart.at("forward and backward")
        examples = rows.examples()
        sums = self._backward(examples, rows.domain_of_targets())
        self.heart.at("gather")
        sums, stop = parallel.combine(self.parameters, sums, self.stop.asked)
        if stop:
            return None
        nats = sums[0] / sums[1]
        norm, divisor = clip(self.parameters, recipe.clip, sums[1])
        if not (math.isfinite(nats) and math.isfinite(norm)):
            raise StageError(f"step {self.step + 1}: {self._diverged(examples, float(nats), float(norm))}")
        self.heart.at("optimizer")
        factor = rate(recipe.schedule, self.step, recipe.steps)
        self.optimizers.step(factor, self.guard.judge(self.step, nats, norm), divisor)
        self.step += 1
        return {
            "step": self.step,
            "tokens": recipe.rows_before(self.step) * recipe.model.context,
            "loss": float(nats),
            "grad_norm": float(norm),
            "lr": recipe.optimizer.lr * factor,
            **({"skipped": int(self.guard.skipped)} if recipe.skip else {}),
            **means(sums[2:], self.batches.domains),
        }

    def _evaluate(self, line: dict[str, Any], speed: Speed) -> bool:
        """Add scores on the development split to a log line; False when some process was asked to stop meanwhile."""
        scores: dict[str, float] = {}
        cut = False
        self.heart.at("evaluate", self.step - 1)
        try:
            if self.development:
                with speed.evaluating():
                    scores = self._scored(self.development)
        except CutShortError:
            cut = True
        self.heart.at("scored")
        cut = self.parallel.any(cut)
        self.unfinished = line if cut else None
        line |= scores
        return not cut

    def _asked_meanwhile(self) -> bool:
        self.heart.at("evaluate")
        # Where the model is spread, a batch takes all processes, so that all must leave it out.
        return self.parallel.any(self.stop.asked) if self.parallel.mesh else self.stop.asked

    def _backward(self, examples: Examples, domain: torch.Tensor) -> torch.Tensor:
        """Gradients of the sum of losses over this process' rows, one micro-batch after another; their `totals`,
        and those of every domain."""
        recipe, size = self.recipe, self.recipe.micro_batch
        sums = TreeSum()
        for start in range(0, len(examples.tokens), size):
            exchange(self.model, last=start + size == len(examples.tokens))
            rows = examples.rows(start, start + size).to(self.parallel.device)
            losses = loss(self.model, rows, recipe.z_loss, recipe.loss_chunk)
            losses.total.backward()  # type: ignore[no-untyped-call]
            of_domain = by_domain(losses.nats, rows.targets, domain[start : start + size], len(self.batches.domains))
            counted = torch.cat((totals(losses), of_domain))
            if recipe.mode == "fast":  # gradients add up where they are
                sums.add([counted])
                continue
            sums.add([counted, *(p.grad for p in self.parameters if p.grad is not None)])
            for parameter in self.parameters:
                parameter.grad = None
        total, *grads = sums.total()
        for parameter, grad in zip(self.parameters, grads, strict=recipe.mode == "strict"):
            parameter.grad = grad
        return total

    def _diverged(self, examples: Examples, nats: float, norm: float) -> str:
        """What happened in a step whose loss or gradient is no number, and what to do; the weights are as before it."""
        first = self.parallel.data_rank * len(examples.tokens)
        numbers = range(first, first + len(examples.tokens))
        blamed = rows_to_blame(self.model, examples.to(self.parallel.device), lambda rows: loss(self.model, rows))
        documents = {row: self.batches.documents_of(self.step, row, 1) for row in numbers}
        self.checkpoints.wait()
        newest = self.checkpoints.newest
        return (
            f"the loss is {nats} and the gradient norm {norm}, and "
            f"{report(self.run.work / 'diverged', self.step + 1, documents, [first + row for row in blamed])}; "
            f"{'no checkpoint was written yet' if newest is None else f'the checkpoint of step {newest} stays'}; lower "
            "pretrain.optimizer.muon_lr and lr, or lengthen pretrain.schedule.warmup"
        )

    def _resume(self) -> tuple[int, int]:
        """Take up the newest sound checkpoint: the step to go on from, and the bytes of its log."""
        found = self.checkpoints.load(self.state(), self._accept)
        if found is None:
            if self.first and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
                print("pretrain: beginning anew at step 0", flush=True)
            return 0, 0
        manifest, state = found
        weights = {name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")}
        self.model.load_state_dict(weights)
        self.optimizers.load(state)
        self.guard.load(state)
        self.kept = dict(manifest["kept"])
        self.unfinished = manifest["line"]
        if self.first:
            print(f"pretrain: resuming at step {manifest['step']}", flush=True)
        return int(manifest["step"]), int(manifest["log"]["length"])

    def _accept(self, manifest: dict[str, Any]) -> None:
        """Bring back what a checkpoint counts on where this work folder lacks it. Raises ValueError."""
        kept, log = self.run.work / "kept", self.run.work / "training.jsonl"
        if self.elsewhere:
            fetch(kept, manifest["kept"], self.elsewhere)
        check_kept(kept, manifest["kept"])
        if not is_logged(log, manifest["log"]):
            with written_aside(log) as aside:
                aside.write_bytes(self.checkpoints.log_of(manifest))

    def _keep(self, log: TrainingLog | None) -> None:
        """Begin to write a checkpoint in progress."""
        self.heart.at("save", self.step - 1)
        logged, facts = b"", {}
        if log:
            facts = {"log": log.settle(), "kept": dict(self.kept), "line": self.unfinished}
            logged = log.path.read_bytes()
        self.checkpoints.save(self.step, self.state(), logged, facts)

    def _keep_for_good(self, log: TrainingLog | None) -> None:
        """Write a state that becomes part of the artifacts."""
        self.heart.at("save", self.step - 1)
        state = gathered(self.state(), keep=self.first)
        if log:
            kept = self.run.work / "kept"
            self.kept[str(self.step)] = keep_state(kept, self.step, state, {"log": log.settle()})
            if self.elsewhere:
                self.still_ours()
                send(kept, self.step, self.elsewhere)

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on, besides its number."""
        let_go(self.model)
        weights = {f"model.{name}": tensor for name, tensor in weights_of(self.model).items()}
        return weights | self.optimizers.state() | self.guard.state()

    def _finish(self, state: dict[str, torch.Tensor]) -> None:
        """Write the artifacts: the same bytes however often the run was interrupted, on however many processes."""
        recipe, run = self.recipe, self.run
        manifest = {
            "format": FORMAT,
            "model": recipe.model.model_dump(mode="json"),
            "vocab_size": self.tokens.vocab_size,
            "end_of_text": self.tokens.end_of_text,
            **({} if recipe.masked is None else {"mask": self.tokens.mask}),
            "tokenizer": self.tokens.tokenizer,
            "tokens": self.tokens.manifest,
            "step": self.step,
            "tokens_seen": recipe.rows_before(self.step) * recipe.model.context,
            "domains": {name: asdict(each) for name, each in self.batches.order.drawn(self.step).items()},
            "parameters": recipe.model.parameters(self.tokens.vocab_size),
            "seed": recipe.seed,
            "precision": recipe.precision,
        }
        weights = {name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")}
        save_weights(run.checkpoint, "model", weights)
        (run.checkpoint / "training.jsonl").write_bytes((run.work / "training.jsonl").read_bytes())
        (run.checkpoint / "checkpoint.json").write_bytes(readable(manifest))
        optimizer = {name: state[name] for name in self.optimizers.state()}
        save_weights(run.optimizer, "optimizer", optimizer)
        (run.optimizer / "optimizer.json").write_bytes(readable({"format": FORMAT, "step": self.step}))
        hand_over_kept(run.work / "kept", self.kept, run.optimizer / "steps")

    def _profiler(self) -> Profiler | NoProfiler:
        if self.run.profile is None:
            return NoProfiler()
        path = self.run.profiles / f"{self.run.name}-rank{self.parallel.rank}.json"
        return Profiler(path, *self.run.profile)

    def _development(self) -> Development | None:
        split = self.tokens.development
        if not len(split):
            return None
        recipe = self.recipe
        sample = Development.sample(split, self.tokens.end_of_text, recipe.evaluate_tokens)
        tokens = sum(len(ids) for documents in sample.documents.values() for ids in documents)
        # A forward pass is a third of a step.
        share = tokens / 3 / (recipe.evaluate_every * recipe.batch * recipe.model.context)
        every = f"every {recipe.evaluate_every} steps, about {share:.1%} on top of training"
        if self.first:
            print(f"pretrain: development split: {tokens:,} tokens are scored {every}", flush=True)
        return sample

    def _scored(self, development: Development) -> dict[str, float]:
        """What the log tells of the development split. Raises CutShortError."""
        asked = self._asked_meanwhile
        if self.recipe.masked is not None and self.vocabulary is not None:
            return masked_losses(self.model, development.documents, self.vocabulary, self.recipe.masked.rate, asked)
        scored = development.bits_per_byte(self.model, asked)
        return {f"development_bits_per_byte.{domain}": bits for domain, bits in scored.items()}

    def close(self) -> None:
        """Leave the others."""
        self.heart.end()
        self.parallel.close()

    def _tell(self, outcome: str, facts: dict[str, Any]) -> None:
        tell(self.run.work, {"outcome": outcome, "step": self.step, "resumed_at": self.resumed_at, **facts})


def tell(work: Path, status: dict[str, Any]) -> None:
    """Leave word for the launcher: torchrun makes every exit code 1."""
    aside = work / "status.json.aside"
    aside.write_bytes(readable(status))
    aside.replace(work / "status.json")
