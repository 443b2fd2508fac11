# Shared by the components that name `common` in their build/component.dep.
greet() {
    echo "$1 speaks, version $(cat /srv/NUMBER)"
}
