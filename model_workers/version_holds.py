"""What an operator asked for by name, which goes before the policy until it is asked otherwise."""

from collections.abc import Mapping, Sequence

from model_workers.version_policy import VersionPolicy, version_order


class VersionHolds:
    """Models and versions that were loaded or unloaded explicitly."""

    def __init__(self) -> None:
        self._models_in: set[str] = set()
        self._models_out: set[str] = set()
        self._in: set[tuple[str, str]] = set()
        self._out: set[tuple[str, str]] = set()

    def load(self, model: str, version: str | None) -> None:
        """Note a load: this version stays, or this model follows the policy again."""
        if version is None:
            self._models_in.add(model)
            self._models_out.discard(model)
            self._out = {held for held in self._out if held[0] != model}
        else:
            self._in.add((model, version))
            self._out.discard((model, version))

    def unload(self, model: str, version: str | None) -> None:
        """Note an unload: this version, or all of this model and whatever is published of it, stays out."""
        if version is None:
            self._models_out.add(model)
            self._models_in.discard(model)
            self._in = {held for held in self._in if held[0] != model}
        else:
            self._out.add((model, version))
            self._in.discard((model, version))

    def covers(self, policy: VersionPolicy, model: str) -> bool:
        """Say whether any version of this model is to be served."""
        return model in self._models_in or policy.covers(model) or any(held[0] == model for held in self._in)

    def select(self, policy: VersionPolicy, model: str, versions: Sequence[str]) -> list[str]:
        """Choose among a model's versions, in natural order."""
        chosen = {version for version in versions if (model, version) in self._in}
        if self._at_large(policy, model):
            chosen |= set(policy.select(model, self._free(model, versions)))
        return sorted(chosen, key=version_order)

    def stand_ins(self, policy: VersionPolicy, model: str, versions: Sequence[str]) -> list[str]:
        """List what may serve where nothing of what is selected can, highest first."""
        return policy.stand_ins(model, self._free(model, versions)) if self._at_large(policy, model) else []

    def forget_versions_not_in(self, published: Mapping[str, Sequence[str]]) -> None:
        """Forget versions that are gone from models that are there, so that nothing grows with what once was."""
        self._in = {held for held in self._in if _may_be_there(published, *held)}
        self._out = {held for held in self._out if _may_be_there(published, *held)}

    def _at_large(self, policy: VersionPolicy, model: str) -> bool:
        return model not in self._models_out and (model in self._models_in or policy.covers(model))

    def _free(self, model: str, versions: Sequence[str]) -> list[str]:
        return [version for version in versions if (model, version) not in self._out]


def _may_be_there(published: Mapping[str, Sequence[str]], model: str, version: str) -> bool:
    return model not in published or version in published[model]
