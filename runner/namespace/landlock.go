package namespace

import (
	"errors"

	"arch.network/runner"
)

func prepareLandlock(spec runner.Spec) (func(), error) { return nil, errors.New("x") }
