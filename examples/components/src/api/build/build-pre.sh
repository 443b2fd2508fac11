#!/bin/bash
# Runs before the images of this component, in the root of the tree. What it writes is seen by the images, and by the
# components that need this one; the tree itself stays as it is.
set -e
pushd "$(dirname "$0")" > /dev/null
mkdir -p ../generated
cp ../../../version/NUMBER ../generated/            # from the root
cp -arfT ../../web/pages ../generated/pages         # from a sibling
echo "collected version $(cat ../generated/NUMBER)"
popd > /dev/null
