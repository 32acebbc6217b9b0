"""Who plays which module: `agent.roles` names roles, `roles` says what they are. Checked before anything loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memfactory.core import registry
from memfactory.core.address import address_of
from memfactory.core.errors import BadInput
from memfactory.models.openai_chat import base_url_or_default, lacks_key
from memfactory.recipe.files import read_yaml
from memfactory.recipe.schema import RecipeSchema, RoleConfig
from memfactory.recipe.values import nearest, plain

if TYPE_CHECKING:
    from memfactory.recipe.load import Recipe

#: The model being trained, and its initial weights: roles that every recipe has.
POLICY, FROZEN = "policy", "frozen"
_SERVED = "openai:"


def played_by(schema: RecipeSchema) -> dict[str, str]:
    """The role of each module of the recipe's agent; nothing for an agent without a field `roles`."""
    roles = plain(schema.agent.get("roles") or {})
    return {str(module): str(role) for module, role in roles.items()} if isinstance(roles, Mapping) else {}


def role_config(schema: RecipeSchema, role: str) -> RoleConfig | None:
    """What a role other than the policy is; None if there is no such role."""
    if role in schema.roles:
        return schema.roles[role]
    if role == FROZEN:
        return RoleConfig()
    name = role.removeprefix(_SERVED)
    return RoleConfig(openai=name) if role.startswith(_SERVED) and name else None


def other_roles(schema: RecipeSchema) -> dict[str, RoleConfig]:
    """The roles beside the policy that the agent's modules name, each once."""
    found = {role: role_config(schema, role) for role in played_by(schema).values() if role != POLICY}
    return {role: config for role, config in found.items() if config is not None}


def called_in(schema: RecipeSchema, *, training: bool) -> dict[str, RoleConfig]:
    """Those of `other_roles` that are called; in training on tasks with nothing to read, who only reads is not.

    An agent's class names the modules that read (`reading_modules`), a source's fields say that there is nothing to
    read (`nothing_to_read`). A role without an engine cannot be called by mistake: there is no model of its name.
    """
    reading = getattr(registry.get("agent", schema.agent["type"]).build, "reading_modules", ())
    if (
        not training
        or not reading
        or not all(map(_nothing_to_read, [schema.data.train, *schema.data.eval.values()]))
    ):
        return other_roles(schema)
    called = {role for module, role in played_by(schema).items() if module not in reading}
    return {role: config for role, config in other_roles(schema).items() if role in called}


def _nothing_to_read(source: Mapping[str, Any] | None) -> bool:
    return source is None or getattr(registry.get("data", source["type"]).config, "nothing_to_read", False)


def server_spec(config: RoleConfig) -> dict[str, Any]:
    """The sampler that a server's role needs."""
    if config.sampler is not None:
        return config.sampler
    return {
        "type": "openai",
        "model": config.openai,
        "base_url": base_url_or_default(config.base_url),
        "api_key_env": config.api_key_env,
        "extra_body": config.extra_body,
        "max_tokens_name": config.max_tokens_name,
        "leave_out": config.leave_out,
    }


def check_roles(recipe: Recipe, command: Literal["train", "eval", "infer"] | None) -> None:
    """Raise `BadInput` for a role that nobody can play, or a cast with which `command` makes no sense."""
    schema = recipe.schema
    if POLICY in schema.roles:
        raise recipe.error(
            "roles.policy", "the policy is set by model, sampler and sampling; give this role another name"
        )
    played = played_by(schema)
    for module, role in played.items():
        key = f"agent.roles.{module}"
        config = role_config(schema, role)
        if role != POLICY and config is None:
            known = [POLICY, FROZEN, *(name for name in schema.roles if name != FROZEN)]
            hint = nearest(role, known)
            raise recipe.error(key, f"no role '{role}'; roles: {', '.join(known)}, openai:MODEL{hint}")
        if (
            config is not None
            and config.path is not None
            and (config.sampler or schema.sampler)["type"] == "openai"
        ):
            raise recipe.error(
                f"roles.{role}.path",
                "sampler 'openai' is a server and loads no weights; choose an engine: "
                f"roles.{role}.sampler={{type: hf}}",
            )
        if command is not None and config is not None:
            _check_key(recipe, key, role, config)
            if command != "train":
                _check_frozen(recipe, key, role, config)
    if command == "train" and schema.stage == "rl" and played and POLICY not in played.values():
        raise recipe.error("agent.roles", "no module is played by the policy, so there is nothing to train")


def _check_key(recipe: Recipe, key: str, role: str, config: RoleConfig) -> None:
    if config.openai is not None and config.base_url is None:
        address_of(base_url_or_default(None), "OPENAI_BASE_URL")
    if config.openai is not None and lacks_key(config.base_url, config.api_key_env):
        raise recipe.error(
            key,
            f"role '{role}' needs a key in the environment variable {config.api_key_env}; "
            "for a server of your own set OPENAI_BASE_URL, or roles.NAME.base_url",
        )


def _check_frozen(recipe: Recipe, key: str, role: str, config: RoleConfig) -> None:
    """Beside a policy that a run trained, the initial weights are those of the run, not what it ended with."""
    if config.is_server or config.path is not None:
        return
    folder = Path(recipe.schema.model.path)
    run = folder.parent if folder.name == "final" else folder.parents[2] if len(folder.parts) > 3 else folder
    if folder.name not in ("final", "policy") or not (run / "recipe.yaml").is_file():
        return
    began = _initial_weights(run / "recipe.yaml", role)
    raise recipe.error(
        key,
        f"role '{role}' would be played by {folder}, which {run} trained; "
        f"name the weights that it was trained beside: roles.{role}.path={began}",
    )


def _initial_weights(path: Path, role: str) -> str:
    """What the role was in a run, by the run's recipe; dots if that cannot be read."""
    try:
        recipe: Any = read_yaml(path)
        return str((recipe.get("roles") or {}).get(role, {}).get("path") or recipe["model"]["path"])
    except (BadInput, AttributeError, KeyError, TypeError):
        return "..."
