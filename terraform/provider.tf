# What talks to AWS, what it is told about the account, and the names that several files share.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project     = "mlops-platform"
      Environment = var.environment
      ManagedBy   = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  aws     = data.aws_partition.current.partition

  # A queue's policy names the queue before it is there.
  queues = "arn:${local.aws}:sqs:${var.region}:${local.account}"

  # The namespace of the platform's own metrics in CloudWatch, as monitoring.alerting.sinks names it.
  namespace = "mlops"

  # SageMaker takes hyphens where a module's name has underscores.
  modules = { for name in var.modules : name => replace(name, "_", "-") }
}
