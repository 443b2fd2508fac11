#!/bin/bash
# Runs after the images. What it leaves in generated/ is seen by the components that need this one.
set -e
pushd "$(dirname "$0")" > /dev/null
(cd ../generated && sha256sum NUMBER pages/*) > ../generated/SUMS
popd > /dev/null
