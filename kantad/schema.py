"""What a schema's module takes from kantad: the mark of a validator, and what one is given.

from kantad.schema import ReadOnly, validator
"""

from kantad.values.validators import ReadOnly, ReadOnlyList, validator

__all__ = ["ReadOnly", "ReadOnlyList", "validator"]
