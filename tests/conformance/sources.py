"""The pages that the checks stand for, by the short names that the tables show."""

from typing import Final

REST: Final = "inference_rest.md"
OPENAPI: Final = "open_inference_rest.yaml"
BINARY: Final = "extension_binary_data.md"
REPOSITORY: Final = "extension_model_repository.md"
STATISTICS: Final = "extension_statistics.md"
SCHEDULE: Final = "extension_schedule_policy.md"
HTTP: Final = "RFC 9110"
FRAMING: Final = "RFC 9112"
URI: Final = "RFC 3986"
JSON: Final = "RFC 8259"

URL_BY_PAGE: Final = {
    REST: "https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md",
    OPENAPI: "https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_rest.yaml",
    BINARY: "https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md",
    REPOSITORY: "https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md",
    STATISTICS: "https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md",
    SCHEDULE: "https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_schedule_policy.md",
    HTTP: "https://www.rfc-editor.org/rfc/rfc9110",
    FRAMING: "https://www.rfc-editor.org/rfc/rfc9112",
    URI: "https://www.rfc-editor.org/rfc/rfc3986",
    JSON: "https://www.rfc-editor.org/rfc/rfc8259",
}
